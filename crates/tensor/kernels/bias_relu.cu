// Bias and ReLU on (rows, channels): y = max(x + b, 0); a NaN passes through. The gradient is zero where y <=
// 0 and passes elsewhere (so it also passes at a NaN, as in PyTorch). Its sum over the rows is the bias's
// gradient; it is taken over pieces of consecutive rows, each in a fixed order.
#include "by_channels.cuh"

template <typename T, int V> __device__ void forward(const T *x, const float *bias, T *y, int rows, int channels) {
    Place at = place<V>(rows, channels);
    if (!at.active) return;
    float add[V];
    for (int k = 0; k < V; ++k) add[k] = bias[at.channel + k];
    for (int row = at.begin + threadIdx.y; row < at.end; row += blockDim.y) {
        size_t offset = at.chunk_start + at.channel + (size_t)row * channels;
        Group<T, V> v = Group<T, V>::load(x + offset);
        for (int k = 0; k < V; ++k) {
            float sum = v.value[k] + add[k];
            v.value[k] = sum < 0.0f ? 0.0f : sum;
        }
        v.store(y + offset);
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
KERNEL(256, bias_relu_f32)(const float *x, const float *bias, float *y, int rows, int channels) { forward<float, 1>(x, bias, y, rows, channels); }
KERNEL(256, bias_relu_f32_packed)(const float *x, const float *bias, float *y, int rows, int channels) {
    forward<float, 4>(x, bias, y, rows, channels);
}
KERNEL(256, bias_relu_bf16)(const bf16 *x, const float *bias, bf16 *y, int rows, int channels) { forward<bf16, 1>(x, bias, y, rows, channels); }
KERNEL(256, bias_relu_bf16_packed)(const bf16 *x, const float *bias, bf16 *y, int rows, int channels) {
    forward<bf16, 8>(x, bias, y, rows, channels);
}
KERNEL(256, bias_relu_gradient_f32)(const float *y, const float *gy, float *gx, float *sums, long long rows, int channels) {
    backward(y, gy, gx, sums, rows, channels);
}
KERNEL(256, bias_relu_gradient_bf16)(const bf16 *y, const bf16 *gy, bf16 *gx, float *sums, long long rows, int channels) {
    backward(y, gy, gx, sums, rows, channels);
}
}

HOST_KERNEL(bias_relu_f32)
HOST_KERNEL(bias_relu_f32_packed)
HOST_KERNEL(bias_relu_bf16)
HOST_KERNEL(bias_relu_bf16_packed)
HOST_KERNEL(bias_relu_gradient_f32)
HOST_KERNEL(bias_relu_gradient_bf16)
