/* A stand-in for CUDA's runtime, cuBLAS and cuDNN in the memory of the host: ONNX Runtime's CUDA provider is made with it, partitions a graph, copies and calls.
 *
 * No kernel runs: memory is the host's, a launch does nothing, so outputs are whatever the memory held. What a library needs of its 190 or so functions and finds no answer
 * for here is made by the test as one that returns 0. Structures: driver_types.h of the package nvidia-cuda-runtime; cublasLtMatmulHeuristicResult_t as cublasLt.h has it. */
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { HANDLE_BYTES = 4096, HEURISTIC_BYTES = 96 };
static const size_t MEMORY_BYTES = 24ull << 30;

#define MADE(to) ((*(to) = calloc(1, HANDLE_BYTES)), 0)

/* Memory */
cudaError_t cudaMalloc(void **to, size_t size) { return (*to = malloc(size)) || !size ? cudaSuccess : cudaErrorMemoryAllocation; }
cudaError_t cudaMallocFromPoolAsync(void **to, size_t size, cudaMemPool_t pool, cudaStream_t stream) { return cudaMalloc(to, size); }
cudaError_t cudaMallocHost(void **to, size_t size) { return cudaMalloc(to, size); }
cudaError_t cudaHostAlloc(void **to, size_t size, unsigned int flags) { return cudaMalloc(to, size); }
cudaError_t cudaFree(void *at) { free(at); return cudaSuccess; }
cudaError_t cudaFreeAsync(void *at, cudaStream_t stream) { return cudaFree(at); }
cudaError_t cudaFreeHost(void *at) { return cudaFree(at); }
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) { memmove(to, from, size); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) { return cudaMemcpy(to, from, size, kind); }
cudaError_t cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) { return cudaMemset(to, value, size); }
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = MEMORY_BYTES; return cudaSuccess; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties) { return MADE(pool); }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *at) {
    *found = (struct cudaPointerAttributes){.type = cudaMemoryTypeDevice, .devicePointer = (void *)at, .hostPointer = (void *)at};
    return cudaSuccess;
}

/* The device: the numbers of an L4 (sm_89) */
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int device) {
    *value = name == cudaDevAttrComputeCapabilityMajor ? 8 : name == cudaDevAttrComputeCapabilityMinor ? 9 : 1;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    strcpy(found->name, "stand-in in host memory");
    found->major = 8, found->minor = 9, found->totalGlobalMem = MEMORY_BYTES, found->warpSize = 32, found->multiProcessorCount = 58, found->regsPerBlock = 65536;
    found->maxThreadsPerBlock = 1024, found->maxThreadsPerMultiProcessor = 1536, found->sharedMemPerBlock = 48 << 10, found->sharedMemPerBlockOptin = 99 << 10;
    for (int at = 0; at < 3; at++) found->maxThreadsDim[at] = 1024, found->maxGridSize[at] = 65535;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads, size_t shared, unsigned int flags) { *blocks = 1; return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return "an error of the stand-in"; }
const char *cudaGetErrorName(cudaError_t error) { return "stand-in"; }

/* Streams, events, kernels */
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return MADE(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) { return MADE(stream); }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) { *status = cudaStreamCaptureStatusNone; return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *with) { call(with); return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return MADE(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) { return MADE(event); }
void **__cudaRegisterFatBinary(void *binary) { return calloc(1, HANDLE_BYTES); }

/* cuBLAS, cuDNN */
int cublasCreate_v2(void **made) { return MADE(made); }
int cublasLtCreate(void **made) { return MADE(made); }
const char *cublasGetStatusString(int status) { return "a status of the stand-in"; }
const char *cublasGetStatusName(int status) { return "stand-in"; }
int cublasLtMatmulAlgoGetHeuristic(void *lt, void *work, void *a, void *b, void *c, void *d, void *preference, int wanted, void *found, int *count) {
    memset(found, 0, HEURISTIC_BYTES);
    *count = 1;
    return 0;
}
int cudnnCreate(void **made) { return MADE(made); }
size_t cudnnGetVersion(void) { return 92400; }
/* Every list, of engines too, has one entry, of zeros. */
int cudnnBackendCreateDescriptor(int kind, void **made) { return MADE(made); }
int cudnnBackendGetAttribute(void *of, int name, int type, int64_t wanted, int64_t *count, void *values) {
    if (count) *count = 1;
    if (values) memset(values, 0, 8);
    return 0;
}
const char *cudnnGetErrorString(int status) { return "a status of the stand-in"; }
