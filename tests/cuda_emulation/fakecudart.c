/* libcudart.so: the runtime, whose device computes at once and in the memory of the host. */
#include "device.h"
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, ALIGNMENT = 16, RUBBISH = 0xFF }; /* not a number, as floats; far outside, as indices */

static const Error UNKNOWN = {0, NULL, "unrecognized error code", "unrecognized error code"};

static const Error *known(cudaError_t error) { return error_of(error) ? error_of(error) : &UNKNOWN; }

const char *cudaGetErrorName(cudaError_t error) { return known(error)->runtime; }
const char *cudaGetErrorString(cudaError_t error) { return known(error)->meaning; }
cudaError_t cudaPeekAtLastError(void) { return cudaSuccess; }

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_fault() ? 0 : device_count();
    return device_fault();
}

cudaError_t cudaSetDevice(int device) { return device_unusable(); }
cudaError_t cudaSetDeviceFlags(unsigned flags) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    memset(properties, 0, sizeof *properties);
    device_capability(&properties->major, &properties->minor);
    strcpy(properties->name, "Emulated GPU");
    properties->totalGlobalMem = device_memory();
    properties->warpSize = 32;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerMultiprocessor = 164 << 10;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    properties->multiProcessorCount = 108;
    properties->canMapHostMemory = 1;
    return device_fault();
}

/* Memory: full of rubbish, and followed by a page that nobody may touch, so that what is not written and what is not
 * there is found out. */

typedef struct {
    _Alignas(ALIGNMENT) char *start;
    size_t mapped, size;
} Header; /* in front of an allocation */

cudaError_t cudaMalloc(void **pointer, size_t size) {
    if (device_unusable()) return device_unusable();
    if (size > device_memory() - device_allocated(0)) return cudaErrorMemoryAllocation;
    size_t padded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t mapped = (sizeof(Header) + padded + PAGE - 1) / PAGE * PAGE + PAGE;
    char *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return cudaErrorMemoryAllocation;
    mprotect(start + mapped - PAGE, PAGE, PROT_NONE);
    *pointer = start + mapped - PAGE - padded;
    memset(*pointer, RUBBISH, padded);
    ((Header *)*pointer)[-1] = (Header){start, mapped, size};
    device_allocated(size);
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    if (!pointer) return cudaSuccess;
    Header header = ((Header *)pointer)[-1];
    device_allocated(-(ptrdiff_t)header.size);
    munmap(header.start, header.mapped);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *total = device_memory();
    *free = *total - device_allocated(0);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    *pointer = malloc(size);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *pointer) {
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    memcpy(to, from, size);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *to, int value, size_t size) {
    memset(to, value, size);
    return cudaSuccess;
}

/* A symbol's address is that of the variable itself, which the emulated nvcc leaves in the host's memory. */

cudaError_t cudaMemcpyToSymbol(const void *to, const void *from, size_t size, size_t offset, enum cudaMemcpyKind kind) {
    return cudaMemcpy((char *)to + offset, from, size, kind);
}

cudaError_t cudaMemcpyToSymbolAsync(const void *to, const void *from, size_t size, size_t offset,
                                    enum cudaMemcpyKind kind, cudaStream_t stream) {
    return cudaMemcpyToSymbol(to, from, size, offset, kind);
}

/* Events are times. */

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = malloc(sizeof(struct timespec));
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)event);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaSuccess; }

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const struct timespec *from = (struct timespec *)start, *to = (struct timespec *)end;
    *milliseconds = (to->tv_sec - from->tv_sec) * 1e3f + (to->tv_nsec - from->tv_nsec) * 1e-6f;
    return cudaSuccess;
}
