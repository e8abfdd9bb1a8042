// Local response normalization across channels, forward and backward, on rows of channels; the op's Rust file
// gives the equations. A block takes one row. The threads that hold its channels share the row's values and,
// for the gradient, the terms that are summed.
#include "device.cuh"

struct Normalization {
    // `cross_map`: whether the window is that of PyTorch's CrossMapLRN2d.
    int rows, channels, size, cross_map;
    float alpha, beta, k;
};

// s = k + alpha / n * (sum of the squares in the window of channel c), from a row in shared memory.
__device__ __forceinline__ float scale_of(const float *row, int c, const Normalization &norm) {
    int begin = max(c - norm.size / 2, 0), end = min(c + (norm.size - 1) / 2 + 1, norm.channels);
    float squares = norm.cross_map && begin > 0 ? row[0] * row[0] : 0.0f;
    for (int j = begin; j < end; ++j) squares = fmaf(row[j], row[j], squares);
    return fmaf(norm.alpha / norm.size, squares, norm.k);
}

template <typename T> __device__ void forward(const T *x, T *y, Normalization norm) {
    DYNAMIC_SHARED(float, values);
    size_t start = (size_t)blockIdx.x * norm.channels;
    for (int c = threadIdx.x; c < norm.channels; c += blockDim.x) values[c] = to_float(x[start + c]);
    __syncthreads();
    for (int c = threadIdx.x; c < norm.channels; c += blockDim.x)
        y[start + c] = from_float<T>(values[c] * powf(scale_of(values, c, norm), -norm.beta));
}

template <typename T> __device__ void backward(const T *x, const T *gy, T *gx, Normalization norm) {
    DYNAMIC_SHARED(float, values);
    float *terms = values + norm.channels;
    size_t start = (size_t)blockIdx.x * norm.channels;
    for (int c = threadIdx.x; c < norm.channels; c += blockDim.x) values[c] = to_float(x[start + c]);
    __syncthreads();
    for (int c = threadIdx.x; c < norm.channels; c += blockDim.x) {
        float s = scale_of(values, c, norm);
        terms[c] = to_float(gy[start + c]) * values[c] * powf(s, -norm.beta) / s;
    }
    __syncthreads();
    float factor = 2.0f * norm.alpha * norm.beta / norm.size;
    for (int c = threadIdx.x; c < norm.channels; c += blockDim.x) {
        // The windows that contain c are those of the channels from c - (n - 1) / 2 to c + n / 2;
        // CrossMapLRN2d takes those around c - 1.
        int about = c - norm.cross_map;
        int begin = max(about - (norm.size - 1) / 2, 0), end = min(about + norm.size / 2 + 1, norm.channels);
        float sum = 0.0f;
        for (int j = begin; j < end; ++j) sum += terms[j];
        float direct = to_float(gy[start + c]) * powf(scale_of(values, c, norm), -norm.beta);
        gx[start + c] = from_float<T>(direct - factor * values[c] * sum);
    }
}

extern "C" {
KERNEL(256, local_response_norm_f32)(const float *x, float *y, Normalization norm) { forward(x, y, norm); }
KERNEL(256, local_response_norm_bf16)(const bf16 *x, bf16 *y, Normalization norm) { forward(x, y, norm); }
KERNEL(256, local_response_norm_gradient_f32)(const float *x, const float *gy, float *gx, Normalization norm) {
    backward(x, gy, gx, norm);
}
KERNEL(256, local_response_norm_gradient_bf16)(const bf16 *x, const bf16 *gy, bf16 *gx, Normalization norm) {
    backward(x, gy, gx, norm);
}
}

HOST_KERNEL(local_response_norm_f32)
HOST_KERNEL(local_response_norm_bf16)
HOST_KERNEL(local_response_norm_gradient_f32)
HOST_KERNEL(local_response_norm_gradient_bf16)
