// The operations of a vision transformer on f32: layer norm, GELU, the softmax of attention, and the tokens. A
// warp takes a row where a row has a sum; everything else is element by element.
#include "device.cuh"

struct Statistics {
    float mean, scale;
};

// Returns a row's mean and one over its standard deviation, to every thread of a warp.
static __device__ __forceinline__ Statistics statistics(const float *row, int columns, float epsilon) {
    float sum = 0.0f, square = 0.0f;
    for (int i = threadIdx.x % 32; i < columns; i += 32) sum += row[i];
    float mean = warp_sum(sum) / columns;
    for (int i = threadIdx.x % 32; i < columns; i += 32) square += (row[i] - mean) * (row[i] - mean);
    return {mean, 1.0f / sqrtf(warp_sum(square) / columns + epsilon)};
}

static __device__ __forceinline__ float normal_distribution(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }

extern "C" {
KERNEL(256, layer_norm)
(const float *x, const float *gamma, const float *beta, float *y, int rows, int columns, float epsilon) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    const float *from = x + (size_t)row * columns;
    Statistics of = statistics(from, columns, epsilon);
    for (int i = threadIdx.x % 32; i < columns; i += 32)
        y[(size_t)row * columns + i] = (from[i] - of.mean) * of.scale * gamma[i] + beta[i];
}

// Writes the gradient of the input, and the terms whose sums over the rows are the gradient of the gain.
KERNEL(256, layer_norm_gradient)
(const float *x, const float *gamma, const float *gy, float *gx, float *of_gamma, int rows, int columns, float epsilon) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    const float *from = x + (size_t)row * columns, *back = gy + (size_t)row * columns;
    Statistics of = statistics(from, columns, epsilon);
    float level = 0.0f, along = 0.0f;
    for (int i = threadIdx.x % 32; i < columns; i += 32) {
        float g = back[i] * gamma[i];
        level += g;
        along += g * ((from[i] - of.mean) * of.scale);
    }
    level = warp_sum(level) / columns;
    along = warp_sum(along) / columns;
    for (int i = threadIdx.x % 32; i < columns; i += 32) {
        float unit = (from[i] - of.mean) * of.scale;
        gx[(size_t)row * columns + i] = (back[i] * gamma[i] - level - unit * along) * of.scale;
        of_gamma[(size_t)row * columns + i] = back[i] * unit;
    }
}

// Writes sums[piece, column] of pieces of `together` rows. A block of 32 x 8 threads takes 32 columns of a piece.
KERNEL(256, sum_pieces)(const float *x, float *sums, int rows, int columns, int together) {
    __shared__ float shared[8][33];
    int column = blockIdx.x * 32 + threadIdx.x, first = blockIdx.y * together;
    float total = 0.0f;
    if (column < columns)
        for (int row = first + threadIdx.y; row < min(first + together, rows); row += 8) total += x[(size_t)row * columns + column];
    shared[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    for (int i = 1; i < 8; ++i) total += shared[i][threadIdx.x];
    sums[(size_t)blockIdx.y * columns + column] = total;
}

KERNEL(256, gelu)(const float *x, float *y, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += stride) y[i] = x[i] * normal_distribution(x[i]);
}

KERNEL(256, gelu_gradient)(const float *x, const float *gy, float *gx, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += stride) {
        float density = 0.39894228f * expf(-0.5f * x[i] * x[i]);
        gx[i] = gy[i] * (normal_distribution(x[i]) + x[i] * density);
    }
}

// Replaces each row of scores by its softmax. A NaN makes its whole row NaN.
KERNEL(256, softmax)(float *scores, int rows, int columns) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    float *at = scores + (size_t)row * columns;
    float largest = -INFINITY, sum = 0.0f;
    for (int i = threadIdx.x % 32; i < columns; i += 32) largest = fmaxf(largest, at[i]);
    for (int distance = 16; distance > 0; distance /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    for (int i = threadIdx.x % 32; i < columns; i += 32) {
        at[i] = expf(at[i] - largest);
        sum += at[i];
    }
    float scale = 1.0f / warp_sum(sum);
    for (int i = threadIdx.x % 32; i < columns; i += 32) at[i] *= scale;
}

// Replaces the gradients of each row of a softmax by those of its scores.
KERNEL(256, softmax_gradient)(const float *weights, float *gradients, int rows, int columns) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    const float *weight = weights + (size_t)row * columns;
    float *gradient = gradients + (size_t)row * columns;
    float along = 0.0f;
    for (int i = threadIdx.x % 32; i < columns; i += 32) along += weight[i] * gradient[i];
    along = warp_sum(along);
    for (int i = threadIdx.x % 32; i < columns; i += 32) gradient[i] = weight[i] * (gradient[i] - along);
}

// Writes the offsets of tokens: the class token and its position, then each patch's position and the bias.
KERNEL(256, token_offsets)
(const float *bias, const float *class_token, const float *first, const float *patches, float *y, int count, int dim) {
    int stride = gridDim.x * blockDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
        y[i] = i < dim ? class_token[i] + first[i] : patches[i - dim] + bias[i % dim];
}

// Writes the tokens of images of `of_image` numbers, the first `dim` of which are the class token's.
KERNEL(256, tokens)(const float *x, const float *offsets, float *y, long long count, int of_image, int dim) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += stride) {
        int within = (int)(i % of_image);
        float patch = within < dim ? 0.0f : x[i / of_image * (of_image - dim) + within - dim];
        y[i] = within < dim ? offsets[within] : patch + offsets[within];
    }
}

// Writes the gradient of the patches, of which there are `count` numbers.
KERNEL(256, tokens_gradient)(const float *gy, float *gx, long long count, int of_image, int dim) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += stride)
        gx[i] = gy[i / (of_image - dim) * of_image + i % (of_image - dim) + dim];
}
}

HOST_KERNEL(layer_norm)
HOST_KERNEL(layer_norm_gradient)
HOST_KERNEL(sum_pieces)
HOST_KERNEL(gelu)
HOST_KERNEL(gelu_gradient)
HOST_KERNEL(softmax)
HOST_KERNEL(softmax_gradient)
HOST_KERNEL(token_offsets)
HOST_KERNEL(tokens)
HOST_KERNEL(tokens_gradient)
