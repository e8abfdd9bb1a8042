// Maximum and average pooling, (N, H, W, C) to (N, H', W', C), with exact gradients. The gradient of a
// maximum goes to the first of equal values in row-major order (to the last NaN, where there is one, as in
// PyTorch). An average is divided by the number of its window's pixels inside the padded input. One thread
// computes one output (forward) or one input gradient (backward: it gathers from the windows over the input,
// so no two threads write one value). The average may change the precision: the output of the network's last
// map is f32.
#include "device.cuh"

struct Window {
    int h, w, c, out_h, out_w, kernel, stride, padding;
};

// The pixels of window `o` inside an axis of length `len`, and their number inside the padded axis.
struct Span {
    int begin, end, padded;
};

__device__ __forceinline__ Span span(int o, int len, const Window &window) {
    int start = o * window.stride;
    int end = min(start + window.kernel, len + 2 * window.padding);
    return {max(start - window.padding, 0), min(max(end - window.padding, 0), len), end - start};
}

// The windows that cover pixel `i`: from `first` to `last`, both included.
__device__ __forceinline__ void covering(int i, int out, const Window &window, int *first, int *last) {
    int padded = i + window.padding;
    *first = padded < window.kernel ? 0 : (padded - window.kernel) / window.stride + 1;
    *last = min(padded / window.stride, out - 1);
}

struct Pixel {
    int n, y, x, c;
};

template <typename Index> __device__ __forceinline__ Pixel pixel_of(Index i, int h, int w, int c) {
    Pixel at;
    at.c = (int)(i % c), i /= c;
    at.x = (int)(i % w), i /= w;
    at.y = (int)(i % h);
    at.n = (int)(i / h);
    return at;
}

// A division of 64-bit integers takes many instructions, and few maps need it.
__device__ __forceinline__ Pixel pixel(long long i, int h, int w, int c) {
    return i >> 32 ? pixel_of<unsigned long long>(i, h, w, c) : pixel_of<unsigned>((unsigned)i, h, w, c);
}

template <typename T> __device__ __forceinline__ size_t first_of(const T *x, const Pixel &image, const Window &window, Span rows, Span columns) {
    size_t best = 0;
    float top = 0.0f;
    bool found = false;
    for (int y = rows.begin; y < rows.end; ++y)
        for (int column = columns.begin; column < columns.end; ++column) {
            size_t at = (((size_t)image.n * window.h + y) * window.w + column) * window.c + image.c;
            float value = to_float(x[at]);
            // A NaN counts as the maximum; among several, the last one does.
            if (!found || value > top || value != value) best = at, top = value, found = true;
        }
    return best;
}

template <typename T> __device__ void max_forward(const T *x, T *y, long long count, Window window) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        Pixel out = pixel(i, window.out_h, window.out_w, window.c);
        y[i] = x[first_of(x, out, window, span(out.y, window.h, window), span(out.x, window.w, window))];
    }
}

template <typename T> __device__ void max_backward(const T *x, const T *gy, T *gx, long long count, Window window) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        Pixel in = pixel(i, window.h, window.w, window.c);
        int first_y, last_y, first_x, last_x;
        covering(in.y, window.out_h, window, &first_y, &last_y);
        covering(in.x, window.out_w, window, &first_x, &last_x);
        float total = 0.0f;
        for (int oy = first_y; oy <= last_y; ++oy)
            for (int ox = first_x; ox <= last_x; ++ox)
                if (first_of(x, in, window, span(oy, window.h, window), span(ox, window.w, window)) == (size_t)i)
                    total += to_float(gy[(((size_t)in.n * window.out_h + oy) * window.out_w + ox) * window.c + in.c]);
        gx[i] = from_float<T>(total);
    }
}

template <typename From, typename To> __device__ void average_forward(const From *x, To *y, long long count, Window window) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        Pixel out = pixel(i, window.out_h, window.out_w, window.c);
        Span rows = span(out.y, window.h, window), columns = span(out.x, window.w, window);
        float total = 0.0f;
        for (int row = rows.begin; row < rows.end; ++row)
            for (int column = columns.begin; column < columns.end; ++column)
                total += to_float(x[(((size_t)out.n * window.h + row) * window.w + column) * window.c + out.c]);
        y[i] = from_float<To>(total / (rows.padded * columns.padded));
    }
}

template <typename From, typename To> __device__ void average_backward(const From *gy, To *gx, long long count, Window window) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        Pixel in = pixel(i, window.h, window.w, window.c);
        int first_y, last_y, first_x, last_x;
        covering(in.y, window.out_h, window, &first_y, &last_y);
        covering(in.x, window.out_w, window, &first_x, &last_x);
        float total = 0.0f;
        for (int oy = first_y; oy <= last_y; ++oy)
            for (int ox = first_x; ox <= last_x; ++ox) {
                int divisor = span(oy, window.h, window).padded * span(ox, window.w, window).padded;
                total += to_float(gy[(((size_t)in.n * window.out_h + oy) * window.out_w + ox) * window.c + in.c]) / divisor;
            }
        gx[i] = from_float<To>(total);
    }
}

extern "C" {
KERNEL(256, max_pool_f32)(const float *x, float *y, long long count, Window window) { max_forward(x, y, count, window); }
KERNEL(256, max_pool_bf16)(const bf16 *x, bf16 *y, long long count, Window window) { max_forward(x, y, count, window); }
KERNEL(256, max_pool_gradient_f32)(const float *x, const float *gy, float *gx, long long count, Window window) {
    max_backward(x, gy, gx, count, window);
}
KERNEL(256, max_pool_gradient_bf16)(const bf16 *x, const bf16 *gy, bf16 *gx, long long count, Window window) {
    max_backward(x, gy, gx, count, window);
}
KERNEL(256, average_pool_f32_f32)(const float *x, float *y, long long count, Window window) { average_forward(x, y, count, window); }
KERNEL(256, average_pool_bf16_f32)(const bf16 *x, float *y, long long count, Window window) { average_forward(x, y, count, window); }
KERNEL(256, average_pool_bf16_bf16)(const bf16 *x, bf16 *y, long long count, Window window) { average_forward(x, y, count, window); }
KERNEL(256, average_pool_gradient_f32_f32)(const float *gy, float *gx, long long count, Window window) {
    average_backward(gy, gx, count, window);
}
KERNEL(256, average_pool_gradient_f32_bf16)(const float *gy, bf16 *gx, long long count, Window window) {
    average_backward(gy, gx, count, window);
}
KERNEL(256, average_pool_gradient_bf16_bf16)(const bf16 *gy, bf16 *gx, long long count, Window window) {
    average_backward(gy, gx, count, window);
}
}

HOST_KERNEL(max_pool_f32)
HOST_KERNEL(max_pool_bf16)
HOST_KERNEL(max_pool_gradient_f32)
HOST_KERNEL(max_pool_gradient_bf16)
HOST_KERNEL(average_pool_f32_f32)
HOST_KERNEL(average_pool_bf16_f32)
HOST_KERNEL(average_pool_bf16_bf16)
HOST_KERNEL(average_pool_gradient_f32_f32)
HOST_KERNEL(average_pool_gradient_f32_bf16)
HOST_KERNEL(average_pool_gradient_bf16_bf16)
