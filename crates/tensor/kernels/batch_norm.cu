// Batch norm with the addition and the ReLU that follow it, forward and backward. Each direction reads the
// data twice: first for the sums of each channel, then to compute the result.
//
// Data is (chunks, rows, channels): the rows of a chunk share their statistics (by_channels.cuh says which
// threads take which rows and channels). Sums are in f32 within a slice, relative to the chunk's first row
// (so a large mean costs no digits), and in f64 over slices. Their order depends only on the shape and the
// number of slices. For each chunk and group of channels, the block that ends last adds up the slices. Then
// the result is computed either by the blocks of the same launch, which wait for this block (a cooperative
// launch: the slices are read again from the cache, from the last row to the first), or by a second launch.
#include "by_channels.cuh"

// What the ReLU's gradient depends on: nothing (no ReLU), the sign recomputed from x, or the sign of y (with
// a residual). The gradient is zero where the value is at most zero. It passes at a NaN, as in PyTorch.
enum Gate { OPEN = 0, FROM_X = 1, FROM_Y = 2 };

// Rows that a thread loads at the same time: enough bytes to hide the latency of memory with two blocks on a
// multiprocessor.
static constexpr int ROWS_OF_ONE = 4, ROWS_OF_MANY = 2;

// The counters by which a launch finds the last block of a chunk's channels: three for each chunk and group
// of channels, zero between launches.
struct Tickets {
    unsigned *first;
    __device__ unsigned *here() const { return first + 3 * (blockIdx.z * gridDim.x + blockIdx.x); }
    __device__ unsigned *gate() const { return here() + 1; }
    // One for each group of channels, over all chunks.
    __device__ unsigned *across_chunks() const { return first + 3 * gridDim.z * gridDim.x + blockIdx.x; }
};

struct Forward {
    int rows, channels, relu;
    float eps, share;
};

template <typename T, int V> __device__ void sum_statistics(const T *x, float *partial, int rows, int channels) {
    Place at = place<V>(rows, channels);
    float sum[V] = {}, square[V] = {};
    if (at.active) {
        const T *chunk = x + at.chunk_start + at.channel;
        Group<T, V> about = Group<T, V>::load(chunk);
        for (int first = at.begin + threadIdx.y; first < at.end; first += ROWS_OF_ONE * blockDim.y) {
            Group<T, V> v[ROWS_OF_ONE];
#pragma unroll
            for (int i = 0; i < ROWS_OF_ONE; ++i) {
                int row = first + i * blockDim.y;
                if (row < at.end) v[i] = Group<T, V>::load(chunk + (size_t)row * channels);
            }
#pragma unroll
            for (int i = 0; i < ROWS_OF_ONE; ++i) {
                if (first + i * (int)blockDim.y >= at.end) continue;
                for (int k = 0; k < V; ++k) {
                    float d = v[i].value[k] - about.value[k];
                    sum[k] += d;
                    square[k] = fmaf(d, d, square[k]);
                }
            }
        }
    }
    store_sums<V>(sum, square, partial, channels);
}

// Numbers of a channel of a chunk that the forward pass saves: the mean, 1 / sqrt(variance + eps), and what the mean
// loses when it is rounded to f32. Where few rows nearly cancel in a gradient, that loss alone would be a large part of it.
enum Saved { MEAN = 0, INVERSE = 1, REMAINDER = 2, SAVED = 3 };

// Writes saved[chunk][SAVED][channels]. Moves the running statistics, if given, by those of the first chunk.
template <typename T, int V>
__device__ void finish_statistics(const T *x, const float *partial, float *saved, float *running_mean, float *running_variance,
                                  Forward sizes) {
    int chunk = blockIdx.z, rows = sizes.rows, channels = sizes.channels;
    total_sums<V>(partial, chunk, channels, [&](int channel, const double (&totals)[2]) {
        const T *values = x + (size_t)chunk * rows * channels + channel;
        double about = to_float(*values), offset = totals[0] / rows, mean = about + offset;
        double variance = totals[1] / rows - offset * offset;
        // This is not fmax, which would turn a NaN into zero.
        if (variance < 0.0) variance = 0.0;
        if (totals[0] - totals[0] != 0.0 || totals[1] - totals[1] != 0.0) {
            // If squares overflowed f32 or a value is not finite, compute again by the plain equations. A
            // variance of infinity would make every output `beta`.
            mean = variance = 0.0;
            for (int row = 0; row < rows; ++row) mean += to_float(values[(size_t)row * channels]) / (double)rows;
            for (int row = 0; row < rows; ++row) {
                double difference = to_float(values[(size_t)row * channels]) - mean;
                variance += difference * difference / rows;
            }
        }
        float *numbers = saved + (size_t)chunk * SAVED * channels + channel;
        numbers[MEAN * channels] = (float)mean;
        numbers[INVERSE * channels] = (float)(1.0 / sqrt(variance + sizes.eps));
        numbers[REMAINDER * channels] = (float)(mean - (float)mean);
        if (chunk == 0 && running_mean) {
            double unbiased = rows > 1 ? variance * rows / (rows - 1.0) : variance * rows, share = sizes.share;
            running_mean[channel] = (float)((1.0 - share) * running_mean[channel] + share * mean);
            running_variance[channel] = (float)((1.0 - share) * running_variance[channel] + share * unbiased);
        }
    });
}

// Returns (x - mean) scale + beta. The forward and the backward pass both compute it this way, so that the
// ReLU is open at the same values in both.
__device__ __forceinline__ float normalized(float x, float mean, float remainder, float scale, float beta) {
    return fmaf(x - mean - remainder, scale, beta);
}

// `mean_of` and `second` are what is saved of the first chunk, from MEAN and from INVERSE on, or else (`running`) the
// running means and variances.
template <typename T, int V>
__device__ void apply(const T *x, const T *residual, const float *mean_of, const float *second, const float *gamma, const float *beta, T *y,
                      Forward sizes, bool running) {
    int channels = sizes.channels;
    Place at = place<V>(sizes.rows, channels);
    if (!at.active) return;
    float mean[V], remainder[V], scale[V], shift[V];
    size_t numbers = (size_t)blockIdx.z * SAVED * channels + at.channel;
    for (int k = 0; k < V; ++k) {
        mean[k] = read_fresh(mean_of + numbers + k);
        float inverse = read_fresh(second + numbers + k);
        remainder[k] = running ? 0.0f : read_fresh(second + numbers + (REMAINDER - INVERSE) * channels + k);
        if (running) inverse = (float)(1.0 / sqrt((double)inverse + sizes.eps));
        scale[k] = inverse * gamma[at.channel + k];
        shift[k] = beta[at.channel + k];
    }
    size_t start = at.chunk_start + at.channel;
    // The rows are read from the last to the first, since the last ones are still in the cache.
    for (int last = at.end - 1 - threadIdx.y; last >= at.begin; last -= ROWS_OF_MANY * blockDim.y) {
        Group<T, V> v[ROWS_OF_MANY], r[ROWS_OF_MANY];
#pragma unroll
        for (int i = 0; i < ROWS_OF_MANY; ++i) {
            int row = last - i * (int)blockDim.y;
            size_t offset = start + (size_t)row * channels;
            if (row >= at.begin) v[i] = Group<T, V>::load(x + offset);
            if (row >= at.begin && residual) r[i] = Group<T, V>::load(residual + offset);
        }
#pragma unroll
        for (int i = 0; i < ROWS_OF_MANY; ++i) {
            int row = last - i * (int)blockDim.y;
            if (row < at.begin) continue;
            for (int k = 0; k < V; ++k) {
                float out = normalized(v[i].value[k], mean[k], remainder[k], scale[k], shift[k]);
                if (residual) out += r[i].value[k];
                // Written so that a NaN stays a NaN.
                v[i].value[k] = sizes.relu && out < 0.0f ? 0.0f : out;
            }
            v[i].store(y + start + (size_t)row * channels);
        }
    }
}

struct Backward {
    int rows, channels, gate;
};

// The numbers of a channel from which the sign of its output is computed again.
template <int V> struct Normalization {
    float mean[V], remainder[V], scale[V], shift[V];
    __device__ Normalization(const float *saved, const float *gamma, const float *beta, int channel, int channels) {
        const float *numbers = saved + (size_t)blockIdx.z * SAVED * channels + channel;
        for (int k = 0; k < V; ++k) {
            mean[k] = numbers[MEAN * channels + k];
            remainder[k] = numbers[REMAINDER * channels + k];
            scale[k] = numbers[INVERSE * channels + k] * gamma[channel + k];
            shift[k] = beta[channel + k];
        }
    }
    __device__ bool open(int gate, int k, float x, float y) const {
        return gate == OPEN || !((gate == FROM_Y ? y : normalized(x, mean[k], remainder[k], scale[k], shift[k])) <= 0.0f);
    }
};

template <typename T, int V>
__device__ void sum_gradients(const T *x, const T *y, const T *gy, const float *saved, const float *gamma, const float *beta, float *partial,
                              Backward sizes) {
    int channels = sizes.channels, gate = sizes.gate;
    Place at = place<V>(sizes.rows, channels);
    float sum[V] = {}, along[V] = {};
    if (at.active) {
        Normalization<V> norm(saved, gamma, beta, at.channel, channels);
        size_t start = at.chunk_start + at.channel;
        for (int first = at.begin + threadIdx.y; first < at.end; first += ROWS_OF_MANY * blockDim.y) {
            Group<T, V> v[ROWS_OF_MANY], g[ROWS_OF_MANY], out[ROWS_OF_MANY];
#pragma unroll
            for (int i = 0; i < ROWS_OF_MANY; ++i) {
                int row = first + i * (int)blockDim.y;
                size_t offset = start + (size_t)row * channels;
                if (row >= at.end) continue;
                v[i] = Group<T, V>::load(x + offset), g[i] = Group<T, V>::load(gy + offset);
                if (gate == FROM_Y) out[i] = Group<T, V>::load(y + offset);
            }
#pragma unroll
            for (int i = 0; i < ROWS_OF_MANY; ++i) {
                if (first + i * (int)blockDim.y >= at.end) continue;
                for (int k = 0; k < V; ++k) {
                    float gated = norm.open(gate, k, v[i].value[k], out[i].value[k]) ? g[i].value[k] : 0.0f;
                    sum[k] += gated;
                    along[k] = fmaf(gated, v[i].value[k] - norm.mean[k] - norm.remainder[k], along[k]);
                }
            }
        }
        // The sum is over products with the normalized input; its factor is the same for all rows, so it is
        // applied here.
        for (int k = 0; k < V; ++k) along[k] *= saved[((size_t)blockIdx.z * SAVED + INVERSE) * channels + at.channel + k];
    }
    store_sums<V>(sum, along, partial, channels);
}

// Writes means[chunk][2][channels], the means of the gated gradient and of its product with the normalized
// input, and the gradients of gamma and beta over all chunks; totals[chunk][2][channels] keeps the sums for
// that.
template <int V>
__device__ void finish_gradients(const float *partial, float *means, double *totals_of, float *grad_gamma, float *grad_beta, Tickets tickets,
                                 Backward sizes) {
    int chunk = blockIdx.z, chunks = gridDim.z, channels = sizes.channels, rows = sizes.rows;
    total_sums<V>(partial, chunk, channels, [&](int channel, const double (&totals)[2]) {
        for (int half = 0; half < 2; ++half) {
            size_t place = ((size_t)chunk * 2 + half) * channels + channel;
            means[place] = (float)(totals[half] / rows);
            totals_of[place] = totals[half];
        }
    });
    if (!is_last(tickets.across_chunks(), chunks)) return;
    int lanes = blockDim.x * V, threads = blockDim.x * blockDim.y;
    for (int lane = threadIdx.y * blockDim.x + threadIdx.x; lane < lanes; lane += threads) {
        int channel = blockIdx.x * lanes + lane;
        if (channel >= channels) continue;
        double gamma = 0.0, beta = 0.0;
        for (int i = 0; i < chunks; ++i) {
            beta += read_fresh(totals_of + (size_t)i * 2 * channels + channel);
            gamma += read_fresh(totals_of + ((size_t)i * 2 + 1) * channels + channel);
        }
        grad_gamma[channel] = (float)gamma;
        grad_beta[channel] = (float)beta;
    }
}

// gx = scale (g - mean of g - unit * mean of g unit), where unit = (x - mean) inverse.
template <typename T, int V>
__device__ void gradients(const T *x, const T *y, const T *gy, const float *saved, const float *means, const float *gamma, const float *beta,
                          T *gx, T *gr, Backward sizes) {
    int channels = sizes.channels, gate = sizes.gate;
    Place at = place<V>(sizes.rows, channels);
    if (!at.active) return;
    Normalization<V> norm(saved, gamma, beta, at.channel, channels);
    float mean_g[V], slope[V];
    const float *inverse = saved + ((size_t)blockIdx.z * SAVED + INVERSE) * channels + at.channel;
    size_t numbers = (size_t)blockIdx.z * 2 * channels + at.channel;
    for (int k = 0; k < V; ++k) {
        mean_g[k] = read_fresh(means + numbers + k);
        slope[k] = read_fresh(means + numbers + channels + k) * inverse[k];
    }
    size_t start = at.chunk_start + at.channel;
    for (int last = at.end - 1 - threadIdx.y; last >= at.begin; last -= ROWS_OF_MANY * blockDim.y) {
        Group<T, V> v[ROWS_OF_MANY], g[ROWS_OF_MANY], out[ROWS_OF_MANY];
#pragma unroll
        for (int i = 0; i < ROWS_OF_MANY; ++i) {
            int row = last - i * (int)blockDim.y;
            size_t offset = start + (size_t)row * channels;
            if (row < at.begin) continue;
            v[i] = Group<T, V>::load(x + offset), g[i] = Group<T, V>::load(gy + offset);
            if (gate == FROM_Y) out[i] = Group<T, V>::load(y + offset);
        }
#pragma unroll
        for (int i = 0; i < ROWS_OF_MANY; ++i) {
            int row = last - i * (int)blockDim.y;
            size_t offset = start + (size_t)row * channels;
            if (row < at.begin) continue;
            for (int k = 0; k < V; ++k) {
                float gated = norm.open(gate, k, v[i].value[k], out[i].value[k]) ? g[i].value[k] : 0.0f;
                float rest = fmaf(norm.mean[k] - v[i].value[k] + norm.remainder[k], slope[k], gated - mean_g[k]);
                g[i].value[k] = gated;
                v[i].value[k] = norm.scale[k] * rest;
            }
            v[i].store(gx + offset);
            if (gr) g[i].store(gr + offset);
        }
    }
}

// Channels are taken in packs of sixteen bytes if they fill such packs (suffix _packed), one at a time
// otherwise. The kernels `_together` are for cooperative launches.
#define BATCH_NORM_KERNELS(SUFFIX, T, V)                                                                                                   \
    RESIDENT_KERNEL(256, 2, batch_norm_statistics_##SUFFIX)(const T *x, float *partial, float *saved, float *running_mean,                 \
                                                            float *running_variance, unsigned *tickets, Forward sizes) {                   \
        sum_statistics<T, V>(x, partial, sizes.rows, sizes.channels);                                                                      \
        if (is_last(Tickets{tickets}.here(), gridDim.y))                                                                                   \
            finish_statistics<T, V>(x, partial, saved, running_mean, running_variance, sizes);                                             \
    }                                                                                                                                      \
    RESIDENT_KERNEL(256, 2, batch_norm_apply_##SUFFIX)(const T *x, const T *residual, const float *mean, const float *second,              \
                                                       const float *gamma, const float *beta, T *y, int running, Forward sizes) {          \
        apply<T, V>(x, residual, mean, second, gamma, beta, y, sizes, running);                                                            \
    }                                                                                                                                      \
    RESIDENT_KERNEL(256, 2, batch_norm_together_##SUFFIX)(const T *x, float *partial, float *saved, float *running_mean,                   \
                                                          float *running_variance, unsigned *tickets, const T *residual,                   \
                                                          const float *gamma, const float *beta, T *y, Forward sizes) {                    \
        sum_statistics<T, V>(x, partial, sizes.rows, sizes.channels);                                                                      \
        bool last = is_last(Tickets{tickets}.here(), gridDim.y);                                                                           \
        if (last) finish_statistics<T, V>(x, partial, saved, running_mean, running_variance, sizes);                                       \
        pass_gate(Tickets{tickets}.gate(), gridDim.y, last);                                                                               \
        apply<T, V>(x, residual, saved, saved + sizes.channels, gamma, beta, y, sizes, false);                                             \
    }                                                                                                                                      \
    RESIDENT_KERNEL(256, 2, batch_norm_gradient_sums_##SUFFIX)(const T *x, const T *y, const T *gy, const float *saved,                    \
                                                               const float *gamma, const float *beta, float *partial, float *means,        \
                                                               double *totals, float *grad_gamma, float *grad_beta, unsigned *tickets,     \
                                                               Backward sizes) {                                                           \
        sum_gradients<T, V>(x, y, gy, saved, gamma, beta, partial, sizes);                                                                 \
        if (is_last(Tickets{tickets}.here(), gridDim.y))                                                                                   \
            finish_gradients<V>(partial, means, totals, grad_gamma, grad_beta, Tickets{tickets}, sizes);                                   \
    }                                                                                                                                      \
    RESIDENT_KERNEL(256, 2, batch_norm_gradients_##SUFFIX)(const T *x, const T *y, const T *gy, const float *saved, const float *gamma,    \
                                                           const float *beta, const float *means, T *gx, T *gr, Backward sizes) {          \
        gradients<T, V>(x, y, gy, saved, means, gamma, beta, gx, gr, sizes);                                                               \
    }                                                                                                                                      \
    RESIDENT_KERNEL(256, 2, batch_norm_gradients_together_##SUFFIX)(const T *x, const T *y, const T *gy, const float *saved,               \
                                                                    const float *gamma, const float *beta, float *partial, float *means,   \
                                                                    double *totals, float *grad_gamma, float *grad_beta,                   \
                                                                    unsigned *tickets, T *gx, T *gr, Backward sizes) {                     \
        sum_gradients<T, V>(x, y, gy, saved, gamma, beta, partial, sizes);                                                                 \
        bool last = is_last(Tickets{tickets}.here(), gridDim.y);                                                                           \
        if (last) finish_gradients<V>(partial, means, totals, grad_gamma, grad_beta, Tickets{tickets}, sizes);                             \
        pass_gate(Tickets{tickets}.gate(), gridDim.y, last);                                                                               \
        gradients<T, V>(x, y, gy, saved, means, gamma, beta, gx, gr, sizes);                                                               \
    }                                                                                                                                      \
    HOST_KERNEL(batch_norm_statistics_##SUFFIX)                                                                                            \
    HOST_KERNEL(batch_norm_apply_##SUFFIX)                                                                                                 \
    HOST_KERNEL(batch_norm_together_##SUFFIX)                                                                                              \
    HOST_KERNEL(batch_norm_gradient_sums_##SUFFIX)                                                                                         \
    HOST_KERNEL(batch_norm_gradients_##SUFFIX)                                                                                             \
    HOST_KERNEL(batch_norm_gradients_together_##SUFFIX)

BATCH_NORM_KERNELS(f32, float, 1)
BATCH_NORM_KERNELS(f32_packed, float, 4)
BATCH_NORM_KERNELS(bf16, bf16, 1)
BATCH_NORM_KERNELS(bf16_packed, bf16, 8)
