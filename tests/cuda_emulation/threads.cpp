/* The threads of a block, one after the other in one of the host's; part of each library that the emulated nvcc makes.
 *
 * A fibre runs thread after thread until one waits at a barrier; then another fibre takes over. So kernels without
 * barriers run as a plain loop. Fibres are entered by setcontext and then switched by longjmp, which unlike swapcontext
 * makes no system call.
 */
#include <csetjmp>
#include <cstring>
#include <curand_kernel.h>
#include <deque>
#include <list>
#include <ucontext.h>
#include <vector>

uint3 threadIdx, blockIdx;

extern char __start_cuda_shared[] __attribute__((weak, visibility("hidden"))); /* the linker's name for the section */
extern char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace {
struct Fibre {
    ucontext_t entry;
    jmp_buf at;
    bool entered = false;
    char stack[1 << 16];
};

const std::function<void()> *kernel;
unsigned next_thread, threads;
dim3 shape;
jmp_buf scheduler;
Fibre *current;
std::list<Fibre> fibres;
std::vector<Fibre *> idle;
std::deque<Fibre *> waiting;

__attribute__((noinline)) void leave() {
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

void work() {
    for (;;) {
        while (next_thread < threads) {
            unsigned thread = next_thread++;
            threadIdx = {thread % shape.x, thread / shape.x, 0};
            (*kernel)();
        }
        idle.push_back(current);
        leave();
    }
}

__attribute__((noinline)) void enter(Fibre *fibre) {
    current = fibre;
    if (_setjmp(scheduler)) return;
    if (fibre->entered) _longjmp(fibre->at, 1);
    fibre->entered = true;
    setcontext(&fibre->entry);
}

Fibre *free_fibre() {
    if (idle.empty()) {
        Fibre &made = fibres.emplace_back();
        getcontext(&made.entry);
        made.entry.uc_stack = {made.stack, 0, sizeof made.stack};
        makecontext(&made.entry, work, 0);
        return &made;
    }
    Fibre *fibre = idle.back();
    idle.pop_back();
    return fibre;
}

void run_block() {
    memset(__start_cuda_shared, 0xFF, __stop_cuda_shared - __start_cuda_shared);
    next_thread = 0;
    while (next_thread < threads) enter(free_fibre());
    while (!waiting.empty()) { /* in the order in which they came, so that none passes a barrier before all are there */
        Fibre *fibre = waiting.front();
        waiting.pop_front();
        enter(fibre);
    }
}
} // namespace

void __syncthreads() {
    uint3 thread = threadIdx;
    waiting.push_back(current);
    leave();
    threadIdx = thread;
}

void launch(dim3 grid, dim3 block, const std::function<void()> &launched) {
    kernel = &launched;
    shape = block;
    threads = block.x * block.y;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) run_block();
}
