// Batch norm with the addition and the ReLU that follow it, forward and backward, each in two passes over the
// data.
//
// Data is (chunks, rows, channels): the rows of a chunk share their statistics. A thread keeps to V adjacent
// channels and walks down the rows of its slice, so the channel's numbers stay in registers and a warp reads
// whole lines. Sums are in f32 within a slice, taken relative to the chunk's first row (so a large mean costs
// no digits), and in f64 over slices; their order depends on the shape alone. Blocks are (lanes, 256 /
// lanes), where lanes is the number of channel groups, at most 32; grids are (channel groups / lanes, slices,
// chunks).
#include "device.cuh"

// What gates the gradient: nothing (no ReLU), the sign recomputed from x, or the sign of y (with a residual).
// A gate is shut where the value is at most zero; the gate of a NaN is open, as in PyTorch.
enum Gate { OPEN = 0, FROM_X = 1, FROM_Y = 2 };

template <typename T, int V> struct Group {
    float value[V];
    static __device__ Group load(const T *from) {
        Group group;
        if constexpr (V == 1) {
            group.value[0] = to_float(*from);
        } else {
            Pack<T> pack = Pack<T>::load(from);
            for (int k = 0; k < V; ++k) group.value[k] = pack.get(k);
        }
        return group;
    }
    __device__ void store(T *to) const {
        if constexpr (V == 1) {
            *to = from_float<T>(value[0]);
        } else {
            Pack<T> pack;
            for (int k = 0; k < V; ++k) pack.set(k, value[k]);
            pack.store(to);
        }
    }
};

// The position of a thread: its first channel, and the rows of its chunk that its slice covers.
struct Place {
    bool active;
    int channel;
    size_t chunk_start;
    int begin, end;
};

template <int V> __device__ Place place(int rows, int channels) {
    Place place;
    int group = blockIdx.x * blockDim.x + threadIdx.x;
    place.channel = group * V;
    place.active = place.channel < channels;
    place.chunk_start = (size_t)blockIdx.z * rows * channels;
    int slice = (rows + gridDim.y - 1) / gridDim.y;
    place.begin = min(rows, (int)blockIdx.y * slice);
    place.end = min(rows, place.begin + slice);
    return place;
}

// Adds the two sums of each channel over the block's rows of threads and stores them at
// partial[chunk][slice][2][channels].
template <int V> __device__ void store_sums(const Place &at, const float *first, const float *second, float *partial, int channels) {
    DYNAMIC_SHARED(float, sums);
    int lanes = blockDim.x * V;
    for (int half = 0; half < 2; ++half) {
        const float *mine = half == 0 ? first : second;
        __syncthreads();
        for (int k = 0; k < V; ++k) sums[threadIdx.y * lanes + threadIdx.x * V + k] = mine[k];
        __syncthreads();
        for (int lane = threadIdx.y * blockDim.x + threadIdx.x; lane < lanes; lane += blockDim.x * blockDim.y) {
            int channel = blockIdx.x * lanes + lane;
            if (channel >= channels) continue;
            float total = 0.0f;
            for (int row = 0; row < (int)blockDim.y; ++row) total += sums[row * lanes + lane];
            size_t slice = (size_t)blockIdx.z * gridDim.y + blockIdx.y;
            partial[(slice * 2 + half) * channels + channel] = total;
        }
    }
}

template <typename T, int V>
__device__ void statistics(const T *x, float *partial, int rows, int channels) {
    Place at = place<V>(rows, channels);
    float sum[V] = {}, square[V] = {};
    if (at.active) {
        const T *chunk = x + at.chunk_start + at.channel;
        Group<T, V> about = Group<T, V>::load(chunk);
        for (int row = at.begin + threadIdx.y; row < at.end; row += blockDim.y) {
            Group<T, V> v = Group<T, V>::load(chunk + (size_t)row * channels);
            for (int k = 0; k < V; ++k) {
                float d = v.value[k] - about.value[k];
                sum[k] += d;
                square[k] = fmaf(d, d, square[k]);
            }
        }
    }
    store_sums<V>(at, sum, square, partial, channels);
}

// Computes the two totals of a channel over all slices, for every thread of row 0. Blocks are (32, 32): a
// column of threads for each channel.
__device__ void total_sums(const float *partial, int chunk, int slices, int channels, double totals[2]) {
    __shared__ double shared[2][32][33];
    int channel = blockIdx.x * 32 + threadIdx.x;
    for (int half = 0; half < 2; ++half) {
        double total = 0.0;
        if (channel < channels)
            for (int slice = threadIdx.y; slice < slices; slice += 32)
                total += partial[(((size_t)chunk * slices + slice) * 2 + half) * channels + channel];
        shared[half][threadIdx.y][threadIdx.x] = total;
    }
    __syncthreads();
    if (threadIdx.y == 0)
        for (int half = 0; half < 2; ++half) {
            totals[half] = 0.0;
            for (int i = 0; i < 32; ++i) totals[half] += shared[half][i][threadIdx.x];
        }
    __syncthreads();
}

// Writes saved[chunk][2][channels]: mean and 1 / sqrt(variance + eps). Moves the running statistics, if
// given, by those of the first chunk. Grid: (channels / 32, 1, chunks).
template <typename T>
__device__ void finish_statistics(const T *x, const float *partial, float *saved, float *running_mean, float *running_variance,
                                  int rows, int channels, int slices, float eps, float share) {
    int chunk = blockIdx.z, channel = blockIdx.x * 32 + threadIdx.x;
    double totals[2];
    total_sums(partial, chunk, slices, channels, totals);
    if (threadIdx.y != 0 || channel >= channels) return;
    const T *values = x + (size_t)chunk * rows * channels + channel;
    double about = to_float(*values), offset = totals[0] / rows, mean = about + offset;
    double variance = totals[1] / rows - offset * offset;
    // Not fmax, which would turn a NaN into zero.
    if (variance < 0.0) variance = 0.0;
    if (totals[0] - totals[0] != 0.0 || totals[1] - totals[1] != 0.0) {
        // Squares overflowed f32, or a value is not finite: compute again by the plain equations. A variance
        // of infinity would make every output `beta`.
        mean = variance = 0.0;
        for (int row = 0; row < rows; ++row) mean += to_float(values[(size_t)row * channels]) / (double)rows;
        for (int row = 0; row < rows; ++row) {
            double difference = to_float(values[(size_t)row * channels]) - mean;
            variance += difference * difference / rows;
        }
    }
    saved[(size_t)chunk * 2 * channels + channel] = (float)mean;
    saved[((size_t)chunk * 2 + 1) * channels + channel] = (float)(1.0 / sqrt(variance + eps));
    if (chunk == 0 && running_mean) {
        double unbiased = rows > 1 ? variance * rows / (rows - 1.0) : variance * rows;
        running_mean[channel] = (float)((1.0 - share) * running_mean[channel] + share * mean);
        running_variance[channel] = (float)((1.0 - share) * running_variance[channel] + share * unbiased);
    }
}

// (x - mean) scale + beta. The forward and the backward pass both compute it this way, so that the gate is
// the same in both.
__device__ __forceinline__ float normalized(float x, float mean, float scale, float beta) { return fmaf(x - mean, scale, beta); }

template <typename T, int V>
__device__ void apply(const T *x, const T *residual, const float *saved, const float *gamma, const float *beta, T *y, int rows,
                      int channels, int relu) {
    Place at = place<V>(rows, channels);
    if (!at.active) return;
    float mean[V], scale[V], shift[V];
    const float *numbers = saved + (size_t)blockIdx.z * 2 * channels + at.channel;
    for (int k = 0; k < V; ++k) {
        mean[k] = numbers[k];
        scale[k] = numbers[channels + k] * gamma[at.channel + k];
        shift[k] = beta[at.channel + k];
    }
    size_t start = at.chunk_start + at.channel;
    for (int row = at.begin + threadIdx.y; row < at.end; row += blockDim.y) {
        size_t offset = start + (size_t)row * channels;
        Group<T, V> v = Group<T, V>::load(x + offset), r;
        if (residual) r = Group<T, V>::load(residual + offset);
        for (int k = 0; k < V; ++k) {
            float out = normalized(v.value[k], mean[k], scale[k], shift[k]);
            if (residual) out += r.value[k];
            // Written so that a NaN stays a NaN.
            v.value[k] = relu && out < 0.0f ? 0.0f : out;
        }
        v.store(y + offset);
    }
}

template <typename T, int V>
__device__ void gradient_sums(const T *x, const T *y, const T *gy, const float *saved, const float *gamma, const float *beta,
                              float *partial, int rows, int channels, int gate) {
    Place at = place<V>(rows, channels);
    float sum[V] = {}, along[V] = {};
    if (at.active) {
        float mean[V], inverse[V], scale[V], shift[V];
        const float *numbers = saved + (size_t)blockIdx.z * 2 * channels + at.channel;
        for (int k = 0; k < V; ++k) {
            mean[k] = numbers[k];
            inverse[k] = numbers[channels + k];
            scale[k] = inverse[k] * gamma[at.channel + k];
            shift[k] = beta[at.channel + k];
        }
        size_t start = at.chunk_start + at.channel;
        for (int row = at.begin + threadIdx.y; row < at.end; row += blockDim.y) {
            size_t offset = start + (size_t)row * channels;
            Group<T, V> v = Group<T, V>::load(x + offset), g = Group<T, V>::load(gy + offset), out;
            if (gate == FROM_Y) out = Group<T, V>::load(y + offset);
            for (int k = 0; k < V; ++k) {
                bool open = gate == OPEN || !((gate == FROM_Y ? out.value[k] : normalized(v.value[k], mean[k], scale[k], shift[k])) <= 0.0f);
                float gated = open ? g.value[k] : 0.0f;
                sum[k] += gated;
                along[k] = fmaf(gated, (v.value[k] - mean[k]) * inverse[k], along[k]);
            }
        }
    }
    store_sums<V>(at, sum, along, partial, channels);
}

// Writes means[chunk][2][channels], the means of the gated gradient and of its product with the normalized
// input, and the gradients of gamma and beta over all chunks. Grid: (channels / 32).
KERNEL(1024, batch_norm_finish_gradients)(const float *partial, float *means, float *grad_gamma, float *grad_beta,
                                                       int chunks, int rows, int channels, int slices) {
    int channel = blockIdx.x * 32 + threadIdx.x;
    double gamma = 0.0, beta = 0.0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        double totals[2];
        total_sums(partial, chunk, slices, channels, totals);
        if (threadIdx.y != 0 || channel >= channels) continue;
        means[(size_t)chunk * 2 * channels + channel] = (float)(totals[0] / rows);
        means[((size_t)chunk * 2 + 1) * channels + channel] = (float)(totals[1] / rows);
        beta += totals[0];
        gamma += totals[1];
    }
    if (threadIdx.y != 0 || channel >= channels) return;
    grad_gamma[channel] = (float)gamma;
    grad_beta[channel] = (float)beta;
}

template <typename T, int V>
__device__ void gradients(const T *x, const T *y, const T *gy, const float *saved, const float *means, const float *gamma,
                          const float *beta, T *gx, T *gr, int rows, int channels, int gate) {
    Place at = place<V>(rows, channels);
    if (!at.active) return;
    float mean[V], inverse[V], scale[V], shift[V], mean_g[V], mean_along[V];
    size_t numbers = (size_t)blockIdx.z * 2 * channels + at.channel;
    for (int k = 0; k < V; ++k) {
        mean[k] = saved[numbers + k];
        inverse[k] = saved[numbers + channels + k];
        scale[k] = inverse[k] * gamma[at.channel + k];
        shift[k] = beta[at.channel + k];
        mean_g[k] = means[numbers + k];
        mean_along[k] = means[numbers + channels + k];
    }
    size_t start = at.chunk_start + at.channel;
    for (int row = at.begin + threadIdx.y; row < at.end; row += blockDim.y) {
        size_t offset = start + (size_t)row * channels;
        Group<T, V> v = Group<T, V>::load(x + offset), g = Group<T, V>::load(gy + offset), out;
        if (gate == FROM_Y) out = Group<T, V>::load(y + offset);
        for (int k = 0; k < V; ++k) {
            bool open = gate == OPEN || !((gate == FROM_Y ? out.value[k] : normalized(v.value[k], mean[k], scale[k], shift[k])) <= 0.0f);
            g.value[k] = open ? g.value[k] : 0.0f;
            float unit = (v.value[k] - mean[k]) * inverse[k];
            v.value[k] = scale[k] * (g.value[k] - mean_g[k] - unit * mean_along[k]);
        }
        v.store(gx + offset);
        if (gr) g.store(gr + offset);
    }
}

// Writes saved[1][2][channels] from running statistics, for evaluation.
KERNEL(256, batch_norm_from_running)(const float *mean, const float *variance, float *saved, int channels, float eps) {
    int channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    saved[channel] = mean[channel];
    saved[channels + channel] = (float)(1.0 / sqrt((double)variance[channel] + eps));
}

// Channels are taken in packs of sixteen bytes if they fill such packs (suffix _packed), one at a time
// otherwise.
#define BATCH_NORM_KERNELS(SUFFIX, T, V)                                                                                           \
    KERNEL(256, batch_norm_statistics_##SUFFIX)(const T *x, float *partial, int rows, int channels) {                \
        statistics<T, V>(x, partial, rows, channels);                                                                              \
    }                                                                                                                              \
    KERNEL(256, batch_norm_apply_##SUFFIX)(const T *x, const T *residual, const float *saved, const float *gamma,    \
                                                         const float *beta, T *y, int rows, int channels, int relu) {              \
        apply<T, V>(x, residual, saved, gamma, beta, y, rows, channels, relu);                                                     \
    }                                                                                                                              \
    KERNEL(256, batch_norm_gradient_sums_##SUFFIX)(const T *x, const T *y, const T *gy, const float *saved,          \
                                                                 const float *gamma, const float *beta, float *partial, int rows,  \
                                                                 int channels, int gate) {                                         \
        gradient_sums<T, V>(x, y, gy, saved, gamma, beta, partial, rows, channels, gate);                                          \
    }                                                                                                                              \
    KERNEL(256, batch_norm_gradients_##SUFFIX)(const T *x, const T *y, const T *gy, const float *saved,              \
                                                             const float *means, const float *gamma, const float *beta, T *gx,     \
                                                             T *gr, int rows, int channels, int gate) {                            \
        gradients<T, V>(x, y, gy, saved, means, gamma, beta, gx, gr, rows, channels, gate);                                        \
    }                                                                                                                              \
    HOST_KERNEL(batch_norm_statistics_##SUFFIX)                                                                                    \
    HOST_KERNEL(batch_norm_apply_##SUFFIX)                                                                                         \
    HOST_KERNEL(batch_norm_gradient_sums_##SUFFIX)                                                                                 \
    HOST_KERNEL(batch_norm_gradients_##SUFFIX)

BATCH_NORM_KERNELS(f32, float, 1)
BATCH_NORM_KERNELS(f32_packed, float, 4)
BATCH_NORM_KERNELS(bf16, bf16, 1)
BATCH_NORM_KERNELS(bf16_packed, bf16, 8)

extern "C" {
KERNEL(1024, batch_norm_finish_statistics_f32)(const float *x, const float *partial, float *saved, float *running_mean,
                                                 float *running_variance, int rows, int channels, int slices, float eps, float share) {
    finish_statistics(x, partial, saved, running_mean, running_variance, rows, channels, slices, eps, share);
}
KERNEL(1024, batch_norm_finish_statistics_bf16)(const bf16 *x, const float *partial, float *saved, float *running_mean,
                                                  float *running_variance, int rows, int channels, int slices, float eps, float share) {
    finish_statistics(x, partial, saved, running_mean, running_variance, rows, channels, slices, eps, share);
}
}
HOST_KERNEL(batch_norm_finish_statistics_f32)
HOST_KERNEL(batch_norm_finish_statistics_bf16)
HOST_KERNEL(batch_norm_finish_gradients)
HOST_KERNEL(batch_norm_from_running)
