/* In place of NVIDIA's header, which GeNN's code includes first: CUDA's language and generator, for a host compiler. */
#pragma once
#include <cmath>
#include <cstdint>
#include <cuda_runtime.h>
#include <functional>

extern uint3 threadIdx, blockIdx;
void __syncthreads();
void launch(dim3 grid, dim3 threads, const std::function<void()> &kernel); /* what <<<grid, threads>>> becomes */

/* Variables that one block of threads at a time has; their section is filled with rubbish before each. */
#undef __shared__
#define __shared__ static __attribute__((section("cuda_shared")))

/* Threads run one after the other, so that nothing need be done to be atomic. */
template <class T, class U> T atomicAdd(T *at, U value) {
    T before = *at;
    *at += value;
    return before;
}
template <class T, class U> T atomicOr(T *at, U value) {
    T before = *at;
    *at |= value;
    return before;
}

template <class T, class U> auto min(T a, U b) -> decltype(a + b) { return b < a ? b : a; }
template <class T, class U> auto max(T a, U b) -> decltype(a + b) { return a < b ? b : a; }

/* With the fields that GeNN copies, and of the size for which it makes room. The generator is Marsaglia's xorwow, as
 * cuRAND's, but starts elsewhere. */
struct curandState {
    unsigned d, v[5];
    int boxmuller_flag;
    double unused[2];
};

inline unsigned curand(curandState *state) {
    unsigned *v = state->v, mixed = v[0] ^ v[0] >> 2;
    for (int i = 0; i < 4; i++) v[i] = v[i + 1];
    v[4] = (v[4] ^ v[4] << 4) ^ (mixed ^ mixed << 1);
    return v[4] + (state->d += 362437);
}

inline void curand_init(uint64_t seed, uint64_t sequence, uint64_t, curandState *state) {
    uint64_t mixed = seed * 0xD1342543DE82EF95 + sequence;
    for (unsigned &word : state->v) { /* splitmix64 */
        mixed += 0x9E3779B97F4A7C15;
        uint64_t next = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
        next = (next ^ next >> 27) * 0x94D049BB133111EB;
        word = next >> 32 | 1; /* they must not all be 0 */
    }
    state->d = 0;
}

/* In (0, 1], as cuRAND's. */
inline float curand_uniform(curandState *state) { return (curand(state) + 1.0) * 0x1p-32; }
