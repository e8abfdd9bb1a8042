// Every kernel file includes this: CUDA's own headers under nvcc, their stand-in for the CPU (../emulator)
// under a plain C++ compiler, and the few things that most kernels need: numbers in either precision, and
// sums over a block in a fixed order.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
// Begins a kernel that is launched with at most `threads` threads to a block. The compiler limits the
// registers so that such a block fits onto a multiprocessor, and every device refuses a larger block.
#define KERNEL(threads, name) extern "C" __global__ void __launch_bounds__(threads) name
// Begins a kernel of which `blocks` blocks must fit onto a multiprocessor together.
#define RESIDENT_KERNEL(threads, blocks, name) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define HOST_KERNEL(name)
// The shared memory that a launch requests, aligned for the widest loads.
#define DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#else
#include "cuda_on_host.hpp"
#endif

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

// Sixteen bytes of T at a time: eight bf16 or four f32.
template <typename T> struct Pack {
    static constexpr int size = 16 / sizeof(T);
    union {
        uint4 bits;
        T values[size];
    };
    __device__ Pack() {}
    __device__ float get(int i) const { return to_float(values[i]); }
    __device__ void set(int i, float x) { values[i] = from_float<T>(x); }
    static __device__ Pack load(const T *from) {
        Pack pack;
        pack.bits = *reinterpret_cast<const uint4 *>(from);
        return pack;
    }
    __device__ void store(T *to) const { *reinterpret_cast<uint4 *>(to) = bits; }
};

__device__ __forceinline__ float warp_sum(float x) {
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// Returns, to every thread, the sum over all threads of a block of whole warps (at most 32 of them). `shared`
// holds 32 floats.
__device__ __forceinline__ float block_sum(float x, float *shared) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += shared[warp];
    return total;
}

#ifdef __CUDACC__
// Reads what another block of this launch has written.
template <typename T> __device__ __forceinline__ T read_fresh(const T *from) { return __ldcg(from); }

// Waits until another block writes a value other than zero here. This is only for cooperative launches, whose
// blocks all run at the same time.
__device__ __forceinline__ void wait_for(const unsigned *flag) {
    while (*reinterpret_cast<const volatile unsigned *>(flag) == 0) __nanosleep(64);
}
#else
template <typename T> T read_fresh(const T *from) { return *from; }
inline void wait_for(const unsigned *flag) { emulated::wait_for(flag); }
#endif

// Tells every thread of a block whether the `blocks - 1` other blocks that count at this ticket have called
// this function before. If so, all that they wrote before the call can be read. The last block sets the
// ticket to zero again.
static __device__ __forceinline__ bool is_last(unsigned *ticket, unsigned blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) {
        last = atomicAdd(ticket, 1u) == blocks - 1;
        if (last) *ticket = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

// Makes the blocks of a group of `blocks` blocks wait until the last one, which `is_last` found, has called
// this function. After that, all that the last block wrote before the call can be read. gate[0] is the flag
// that opens the gate, and gate[1] counts the blocks that went through; the last of them sets both to zero
// again.
static __device__ __forceinline__ void pass_gate(unsigned *gate, unsigned blocks, bool opens) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) {
        if (opens) atomicExch(gate, 1u);
        else wait_for(gate);
        if (atomicAdd(gate + 1, 1u) == blocks - 1) gate[0] = gate[1] = 0;
    }
    __syncthreads();
    __threadfence();
}
