// Bias and ReLU on (rows, channels): y = max(x + b, 0); a NaN passes through. The gradient is zero where y <=
// 0 and passes elsewhere (so it also passes at a NaN, as in PyTorch). Its sum over the rows is the bias's
// gradient; it is taken over pieces of consecutive rows, each in a fixed order.
#include "device.cuh"

template <typename T>
__device__ void forward(const T *x, const float *bias, T *y, long long count, int channels) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        float sum = to_float(x[i]) + bias[i % channels];
        y[i] = from_float<T>(sum < 0.0f ? 0.0f : sum);
    }
}

// Grid: (channels / 32, pieces), blocks of 32 x 8; sums[piece][channel].
template <typename T>
__device__ void backward(const T *y, const T *gy, T *gx, float *sums, long long rows, int channels) {
    __shared__ float shared[8][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    long long piece = (rows + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * piece;
    long long end = begin + piece < rows ? begin + piece : rows;
    float sum = 0.0f;
    if (channel < channels)
        for (long long row = begin + threadIdx.y; row < end; row += 8) {
            size_t at = (size_t)row * channels + channel;
            float gradient = to_float(y[at]) <= 0.0f ? 0.0f : to_float(gy[at]);
            gx[at] = from_float<T>(gradient);
            sum += gradient;
        }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || channel >= channels) return;
    for (int i = 1; i < 8; ++i) sum += shared[i][threadIdx.x];
    sums[(size_t)blockIdx.y * channels + channel] = sum;
}

extern "C" {
KERNEL(256, bias_relu_f32)(const float *x, const float *bias, float *y, long long count, int channels) {
    forward(x, bias, y, count, channels);
}
KERNEL(256, bias_relu_bf16)(const bf16 *x, const float *bias, bf16 *y, long long count, int channels) {
    forward(x, bias, y, count, channels);
}
KERNEL(256, bias_relu_gradient_f32)(const float *y, const float *gy, float *gx, float *sums, long long rows, int channels) {
    backward(y, gy, gx, sums, rows, channels);
}
KERNEL(256, bias_relu_gradient_bf16)(const bf16 *y, const bf16 *gy, bf16 *gx, float *sums, long long rows, int channels) {
    backward(y, gy, gx, sums, rows, channels);
}
}

HOST_KERNEL(bias_relu_f32)
HOST_KERNEL(bias_relu_bf16)
HOST_KERNEL(bias_relu_gradient_f32)
HOST_KERNEL(bias_relu_gradient_bf16)
