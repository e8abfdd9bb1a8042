// Operations on small matrices of f32, row by row: division by a row's length with its gradient, the addition
// of a bias to every row, the sum of the rows, and the reciprocal of each row's length. Squares are summed in
// f64, which neither overflows nor underflows for rows of finite f32 numbers.
#include "device.cuh"

// Returns the reciprocal of a row's length: zero for a row of zeros, NaN for a row with a NaN. One warp for
// each row.
__device__ __forceinline__ double inverse_length(const float *row, int dim) {
    double square = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) square += (double)row[i] * row[i];
    square = warp_sum(square);
    return square == 0.0 ? 0.0 : 1.0 / sqrt(square);
}

extern "C" {
// Blocks of whole warps, with one warp for each row.
KERNEL(256, l2_normalize)(const float *x, float *y, int rows, int dim) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    double scale = inverse_length(x + (size_t)row * dim, dim);
    for (int i = threadIdx.x % 32; i < dim; i += 32) y[(size_t)row * dim + i] = (float)(x[(size_t)row * dim + i] * scale);
}

KERNEL(256, l2_normalize_gradient)(const float *x, const float *gy, float *gx, int rows, int dim) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    const float *at = x + (size_t)row * dim, *back = gy + (size_t)row * dim;
    double scale = inverse_length(at, dim), along = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) along += (double)at[i] * back[i];
    along = warp_sum(along) * scale * scale;
    for (int i = threadIdx.x % 32; i < dim; i += 32) gx[(size_t)row * dim + i] = (float)((back[i] - at[i] * along) * scale);
}

KERNEL(256, inverse_lengths)(const float *x, float *lengths, int rows, int dim) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    double scale = inverse_length(x + (size_t)row * dim, dim);
    if (threadIdx.x % 32 == 0) lengths[row] = (float)scale;
}

KERNEL(256, add_bias)(float *y, const float *bias, int rows, int columns) {
    long long count = (long long)rows * columns, stride = gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) y[i] += bias[i % columns];
}

// Computes y = x times the one number at `factor`.
KERNEL(256, scale_by)(const float *x, const float *factor, float *y, int count) {
    float by = *factor;
    int stride = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) y[i] = x[i] * by;
}

// Writes sums[column]. A block of 32 x 8 threads takes 32 columns: a thread adds up every eighth row, then
// the eight sums are added.
KERNEL(256, sum_rows)(const float *x, float *sums, int rows, int columns) {
    __shared__ float shared[8][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    float total = 0.0f;
    if (column < columns) {
#pragma unroll 8
        for (int row = threadIdx.y; row < rows; row += 8) total += x[(size_t)row * columns + column];
    }
    shared[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    for (int i = 1; i < 8; ++i) total += shared[i][threadIdx.x];
    sums[column] = total;
}
}

HOST_KERNEL(l2_normalize)
HOST_KERNEL(l2_normalize_gradient)
HOST_KERNEL(inverse_lengths)
HOST_KERNEL(add_bias)
HOST_KERNEL(scale_by)
HOST_KERNEL(sum_rows)
