/* libcuda.so.1: what GeNN's search for block sizes, and whoever wants to know about the GPU, asks the driver. */
#include "device.h"
#include <cuda.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Error ERRORS[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "cudaSuccess", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "cudaErrorInvalidValue", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "out of memory"},
    {35, NULL, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {36, NULL, "cudaErrorCallRequiresNewerDriver", "API call is not supported in the installed CUDA driver"},
    {UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE", "cudaErrorDevicesUnavailable",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "cudaErrorInvalidDevice", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {301, "CUDA_ERROR_FILE_NOT_FOUND", "cudaErrorFileNotFound", "file not found"},
    {500, "CUDA_ERROR_NOT_FOUND", "cudaErrorSymbolNotFound", "named symbol not found"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "cudaErrorSystemDriverMismatch",
     "system has unsupported display driver / cuda driver combination"},
    {999, "CUDA_ERROR_UNKNOWN", "cudaErrorUnknown", "unknown error"},
};

const Error *error_of(int number) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].number == number) return &ERRORS[i];
    return NULL;
}

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

int device_count(void) { return atoi(setting("FAKECUDA_DEVICES", "1")); }
void device_capability(int *major, int *minor) { sscanf(setting("FAKECUDA_CC", "9.0"), "%d.%d", major, minor); }
size_t device_memory(void) { return strtoull(setting("FAKECUDA_MEMORY", "84825604096"), NULL, 10); }
int device_fault(void) { return device_count() ? atoi(setting("FAKECUDA_INIT", "0")) : NO_DEVICE; }

int device_unusable(void) {
    int busy = atoi(setting("FAKECUDA_BUSY", "0")) ? UNAVAILABLE : 0;
    return device_fault() ? device_fault() : busy;
}

size_t device_allocated(ptrdiff_t change) {
    static size_t allocated = 0;
    return allocated += change;
}

/* errors, of which some are the runtime's alone: a driver does not know that it is too old */

CUresult cuInit(unsigned flags) {
    const Error *error = error_of(device_fault());
    return error && !error->driver ? CUDA_SUCCESS : device_fault();
}

CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = error_of(error) ? error_of(error)->driver : NULL;
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **meaning) {
    *meaning = error_of(error) && error_of(error)->driver ? error_of(error)->meaning : NULL;
    return *meaning ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* devices */

CUresult cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = device_count();
    return cuInit(0);
}

CUresult cuDeviceGet(CUdevice *device, int number) {
    *device = number;
    return number < device_count() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    snprintf(name, size, "Emulated GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    int major, minor;
    device_capability(&major, &minor);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = major; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = minor; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_MODE: *value = CU_COMPUTEMODE_DEFAULT; return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    *bytes = device_memory();
    return CUDA_SUCCESS;
}

/* contexts: there is one, which is always current */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = (CUcontext)1;
    return device_unusable();
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    return cuDevicePrimaryCtxRetain(context, device);
}

#if CUDA_VERSION >= 13000
CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *parameters, unsigned flags, CUdevice device) {
    return cuDevicePrimaryCtxRetain(context, device);
}
#endif

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { return CUDA_SUCCESS; }
CUresult cuCtxDestroy_v2(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext context) { return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext *context) { return CUDA_SUCCESS; }

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
    *total = device_memory();
    *free = *total - device_allocated(0);
    return CUDA_SUCCESS;
}

/* modules: what a cubin file holds, which is an ELF file of the real nvcc's or, of the emulated one's, a line for each
 * kernel */

typedef struct {
    char *text;
    size_t size;
} Module;

typedef struct {
    int registers, shared;
} Kernel;

enum { REGISTERS_NOTE = 0x00082F04 }; /* followed by a symbol and its number of registers */

CUresult cuModuleLoad(CUmodule *loaded, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    Module *module = malloc(sizeof *module);
    fseek(file, 0, SEEK_END);
    module->size = ftell(file);
    rewind(file);
    module->text = calloc(module->size + 1, 1);
    size_t count = fread(module->text, 1, module->size, file);
    fclose(file);
    *loaded = (CUmodule)module;
    return count == module->size ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

CUresult cuModuleUnload(CUmodule loaded) {
    free(((Module *)loaded)->text);
    free((Module *)loaded);
    return CUDA_SUCCESS;
}

/* nvcc gives each kernel a section for its code, whose info is the kernel's symbol, and one for what its threads share.
 * One more section notes the registers of each symbol. */
static int find_in_elf(const Module *module, const char *name, Kernel *kernel) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)module->text;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(module->text + header->e_shoff);
    const char *names = module->text + sections[header->e_shstrndx].sh_offset;
    const Elf64_Shdr *code = NULL, *notes = NULL;
    for (const Elf64_Shdr *section = sections; section < sections + header->e_shnum; section++) {
        const char *called = names + section->sh_name;
        if (!strncmp(called, ".text.", 6) && !strcmp(called + 6, name)) code = section;
        if (!strncmp(called, ".nv.shared.", 11) && !strcmp(called + 11, name)) kernel->shared = section->sh_size;
        if (!strcmp(called, ".nv.info")) notes = section;
    }
    if (!code || !notes) return 0;
    const uint32_t *words = (const uint32_t *)(module->text + notes->sh_offset);
    for (size_t i = 0; i + 2 < notes->sh_size / sizeof *words; i++)
        if (words[i] == REGISTERS_NOTE && words[i + 1] == (code->sh_info & 0xFFFFFF)) kernel->registers = words[i + 2];
    return kernel->registers > 0;
}

static int find_in_lines(const Module *module, const char *name, Kernel *kernel) {
    char found[512];
    int read;
    for (const char *at = module->text;
         sscanf(at, "%511s %d %d%n", found, &kernel->registers, &kernel->shared, &read) == 3; at += read)
        if (!strcmp(found, name)) return 1;
    return 0;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule loaded, const char *name) {
    const Module *module = (const Module *)loaded;
    Kernel *kernel = calloc(1, sizeof *kernel); /* never given back: there are a few for each build */
    int is_elf = module->size > sizeof(Elf64_Ehdr) && !memcmp(module->text, ELFMAG, SELFMAG);
    *function = (CUfunction)kernel;
    return (is_elf ? find_in_elf : find_in_lines)(module, name, kernel) ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    const Kernel *kernel = (const Kernel *)function;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = kernel->registers; return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = kernel->shared; return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
