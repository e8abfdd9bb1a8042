// Converts between our layouts and cuDNN's: weights (K, K, C_in, C_out) in f32 to (C_out, K, K, C_in) in the
// precision of the convolution, and channels padded with zeros to the number that tensor cores need. Also
// casts, and the sum of two gradients.
#include "device.cuh"

static constexpr int TILE = 32;

// `to`[column][row] = `from`[row][column] for a weight of `kernel` pixels x `channels` rows and `columns`
// columns; the rows of a pixel are padded with zeros to `padded`, and the columns to `all_columns`. Grid:
// (all_columns / 32, kernel * padded / 32), blocks of 32 x 8.
template <typename T>
__device__ void pack_weight(const float *from, T *to, int kernel, int channels, int padded, int columns, int all_columns) {
    __shared__ float tile[TILE][TILE + 1];
    int rows = kernel * padded;
    for (int i = threadIdx.y; i < TILE; i += blockDim.y) {
        int row = blockIdx.y * TILE + i, column = blockIdx.x * TILE + threadIdx.x;
        int pixel = row / padded, channel = row % padded;
        bool inside = row < rows && column < columns && channel < channels;
        tile[i][threadIdx.x] = inside ? from[(size_t)(pixel * channels + channel) * columns + column] : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += blockDim.y) {
        int column = blockIdx.x * TILE + i, row = blockIdx.y * TILE + threadIdx.x;
        if (row < rows && column < all_columns) to[(size_t)column * rows + row] = from_float<T>(tile[threadIdx.x][i]);
    }
}

// The inverse, for gradients: the gradient of the padding is dropped.
template <typename T>
__device__ void unpack_weight(const T *from, float *to, int kernel, int channels, int padded, int columns, int) {
    __shared__ float tile[TILE][TILE + 1];
    int rows = kernel * padded;
    for (int i = threadIdx.y; i < TILE; i += blockDim.y) {
        int column = blockIdx.x * TILE + i, row = blockIdx.y * TILE + threadIdx.x;
        tile[i][threadIdx.x] = row < rows && column < columns ? to_float(from[(size_t)column * rows + row]) : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.y; i < TILE; i += blockDim.y) {
        int row = blockIdx.y * TILE + i, column = blockIdx.x * TILE + threadIdx.x;
        int pixel = row / padded, channel = row % padded;
        if (row < rows && column < columns && channel < channels)
            to[(size_t)(pixel * channels + channel) * columns + column] = tile[threadIdx.x][i];
    }
}

// `to` (pixels x padded) = `from` (pixels x channels), in another precision, padded with zeros; if `padded`
// is smaller, the last channels are dropped.
template <typename From, typename To>
__device__ void cast_channels(const From *from, To *to, long long pixels, int channels, int padded) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < pixels * padded; i += stride) {
        // A division of 64-bit integers takes many instructions, and few maps need it.
        long long pixel = i >> 32 ? i / padded : (unsigned)i / (unsigned)padded;
        int channel = (int)(i - pixel * padded);
        to[i] = from_float<To>(channel < channels ? to_float(from[pixel * channels + channel]) : 0.0f);
    }
}

// `to` += `from`.
template <typename T> __device__ void add_into(T *to, const T *from, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    long long packs = count / Pack<T>::size;
    long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long i = first; i < packs; i += stride) {
        Pack<T> sum = Pack<T>::load(to + i * Pack<T>::size), more = Pack<T>::load(from + i * Pack<T>::size);
        for (int k = 0; k < Pack<T>::size; ++k) sum.set(k, sum.get(k) + more.get(k));
        sum.store(to + i * Pack<T>::size);
    }
    for (long long i = packs * Pack<T>::size + first; i < count; i += stride)
        to[i] = from_float<T>(to_float(to[i]) + to_float(from[i]));
}

extern "C" {
KERNEL(256, pack_weight_f32)(const float *from, float *to, int kernel, int channels, int padded, int columns, int all_columns) {
    pack_weight(from, to, kernel, channels, padded, columns, all_columns);
}
KERNEL(256, pack_weight_bf16)(const float *from, bf16 *to, int kernel, int channels, int padded, int columns, int all_columns) {
    pack_weight(from, to, kernel, channels, padded, columns, all_columns);
}
KERNEL(256, unpack_weight_f32)(const float *from, float *to, int kernel, int channels, int padded, int columns, int all_columns) {
    unpack_weight(from, to, kernel, channels, padded, columns, all_columns);
}
KERNEL(256, unpack_weight_bf16)(const bf16 *from, float *to, int kernel, int channels, int padded, int columns, int all_columns) {
    unpack_weight(from, to, kernel, channels, padded, columns, all_columns);
}
KERNEL(256, cast_channels_f32_f32)(const float *from, float *to, long long pixels, int channels, int padded) {
    cast_channels(from, to, pixels, channels, padded);
}
KERNEL(256, cast_channels_f32_bf16)(const float *from, bf16 *to, long long pixels, int channels, int padded) {
    cast_channels(from, to, pixels, channels, padded);
}
KERNEL(256, cast_channels_bf16_f32)(const bf16 *from, float *to, long long pixels, int channels, int padded) {
    cast_channels(from, to, pixels, channels, padded);
}
KERNEL(256, cast_channels_bf16_bf16)(const bf16 *from, bf16 *to, long long pixels, int channels, int padded) {
    cast_channels(from, to, pixels, channels, padded);
}
KERNEL(256, add_into_f32)(float *to, const float *from, long long count) { add_into(to, from, count); }
KERNEL(256, add_into_bf16)(bf16 *to, const bf16 *from, long long count) { add_into(to, from, count); }
}

HOST_KERNEL(pack_weight_f32)
HOST_KERNEL(pack_weight_bf16)
HOST_KERNEL(unpack_weight_f32)
HOST_KERNEL(unpack_weight_bf16)
HOST_KERNEL(cast_channels_f32_f32)
HOST_KERNEL(cast_channels_f32_bf16)
HOST_KERNEL(cast_channels_bf16_f32)
HOST_KERNEL(cast_channels_bf16_bf16)
HOST_KERNEL(add_into_f32)
HOST_KERNEL(add_into_bf16)
