// For kernels on (chunks, rows, channels) in which each thread takes a few adjacent channels and goes through
// the rows. So a channel's numbers stay in registers, a warp reads whole cache lines, and no index needs a
// division. Blocks are (lanes, 256 / lanes), where lanes is the number of channel groups, at most 32; grids
// are (channel groups / lanes, slices, chunks). `src/cuda/by_channels.rs` makes them.
#pragma once
#include "device.cuh"

// V adjacent channels: V is 1, or as many as sixteen bytes hold.
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
// partial[chunk][slice][2][channels]. The two sums lie in registers, which have no addresses, so each is an
// argument of its own.
template <int V> __device__ void store_sums(const float (&first)[V], const float (&second)[V], float *partial, int channels) {
    DYNAMIC_SHARED(float, sums);
    int lanes = blockDim.x * V, mine = threadIdx.y * lanes + threadIdx.x * V;
    size_t slice = (size_t)blockIdx.z * gridDim.y + blockIdx.y;
    auto add_up = [&](int half) {
        __syncthreads();
        for (int lane = threadIdx.y * blockDim.x + threadIdx.x; lane < lanes; lane += blockDim.x * blockDim.y) {
            int channel = blockIdx.x * lanes + lane;
            if (channel >= channels) continue;
            float total = 0.0f;
            for (int row = 0; row < (int)blockDim.y; ++row) total += sums[row * lanes + lane];
            partial[(slice * 2 + half) * channels + channel] = total;
        }
        __syncthreads();
    };
    for (int k = 0; k < V; ++k) sums[mine + k] = first[k];
    add_up(0);
    for (int k = 0; k < V; ++k) sums[mine + k] = second[k];
    add_up(1);
}

// Computes the two totals of a channel over all slices in f64. The block that runs last calls it. Its threads
// are spread over the channels of its lanes and, where there are fewer channels than threads, over the
// slices. The order of the sums depends only on the shape and the number of slices. Calls `use(channel,
// totals)` for each channel, in one thread. Shared memory: two doubles for each thread.
template <int V, typename F> __device__ void total_sums(const float *partial, int chunk, int channels, F use) {
    DYNAMIC_SHARED(double, totals);
    // All of these are powers of two, and there are no more lanes than threads, so each channel has the same
    // number of threads.
    int lanes = blockDim.x * V, threads = blockDim.x * blockDim.y, parts = threads / lanes, slices = gridDim.y;
    int mine = threadIdx.y * blockDim.x + threadIdx.x, part = mine / lanes, channel = blockIdx.x * lanes + mine % lanes;
    double total[2] = {0.0, 0.0};
    if (channel < channels) {
        const float *from = partial + (size_t)chunk * slices * 2 * channels + channel;
#pragma unroll 4
        for (int slice = part; slice < slices; slice += parts) {
            total[0] += read_fresh(from + (size_t)(2 * slice) * channels);
            total[1] += read_fresh(from + (size_t)(2 * slice + 1) * channels);
        }
    }
    __syncthreads();
    totals[mine] = total[0];
    totals[threads + mine] = total[1];
    __syncthreads();
    if (part != 0 || channel >= channels) return;
    for (int other = 1; other < parts; ++other)
        for (int half = 0; half < 2; ++half) total[half] += totals[half * threads + other * lanes + mine];
    use(channel, total);
}
