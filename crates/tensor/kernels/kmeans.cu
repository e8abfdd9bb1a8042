// One step of Lloyd's algorithm: assigns each point to its nearest centroid, and moves each centroid to the
// mean of its points. It computes what `metrics::kmeans` computes, with the products taken by cuBLAS.
//
// The nearest of the centroids c to x has the largest x . c - |c|^2 / 2; among equals the first one. Products
// of f32 have a known error bound. Where the two largest values differ by less than twice that bound, the
// distances themselves are computed and compared in f64. No floating-point sum depends on the order of
// threads: a counting sort puts the points of a cluster next to one another in order of index, and they are
// added in that order in f64, so a mean has the same bits as on the CPU. The sort works on chunks of points.
// A point's place in its cluster is the start of the cluster, plus the cluster's points in earlier chunks,
// plus those before it in its own chunk, which each thread counts. There is one counter for each chunk and
// cluster; together they take a thousandth of the memory of all scores.
#include "device.cuh"

static constexpr unsigned LANES = 0xffffffffu;
// Threads of a kernel that runs as one block, and points of a chunk, one for each thread.
static constexpr int WIDE = 1024;
// Numbers that a thread reads before it uses the first.
static constexpr int AHEAD = 8;

__device__ __forceinline__ double warp_total(double x) {
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(LANES, x, distance);
    return x;
}

// Returns the sum over a block of WIDE threads, in a fixed order, to every thread.
__device__ double wide_total(double x, double *shared) {
    x = warp_total(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0.0;
    for (int warp = 0; warp < WIDE / 32; ++warp) total += shared[warp];
    return total;
}

// Returns the largest value over a block of WIDE threads, to every thread.
__device__ unsigned long long wide_largest(unsigned long long x, unsigned long long *shared) {
    for (int distance = 16; distance > 0; distance /= 2) {
        unsigned long long other = __shfl_xor_sync(LANES, x, distance);
        if (other > x) x = other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    for (int warp = 0; warp < WIDE / 32; ++warp)
        if (shared[warp] > x) x = shared[warp];
    return x;
}

extern "C" {
// halves[cluster] = |c|^2 / 2. One warp for each centroid.
KERNEL(256, kmeans_half_squares)(const float *centroids, float *halves, int clusters, int dim) {
    int cluster = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (cluster >= clusters) return;
    const float *centroid = centroids + (size_t)cluster * dim;
    double square = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) square += (double)centroid[i] * centroid[i];
    square = warp_total(square);
    if (threadIdx.x % 32 == 0) halves[cluster] = (float)(square / 2.0);
}

// longest: the largest of the halves. One block of WIDE threads.
KERNEL(1024, kmeans_longest)(const float *halves, float *longest, int clusters) {
    __shared__ unsigned long long shared[32];
    // The bits of positive floats have the same order as the floats.
    unsigned long long largest = 0;
    for (int cluster = threadIdx.x; cluster < clusters; cluster += WIDE) {
        unsigned long long bits = __float_as_uint(halves[cluster]);
        if (bits > largest) largest = bits;
    }
    largest = wide_largest(largest, shared);
    if (threadIdx.x == 0) *longest = __uint_as_float((unsigned)largest);
}

// Finds the nearest of `clusters` centroids from `first_cluster` on, given their products with the points,
// `products` (points, clusters), and compares it with the nearest of those before: `best` and `assignments`
// (points). `second` (points) holds the runner-up, equal values included. The three need no values before the
// first call. One warp for each point. A NaN is never the largest; where every value is NaN, the point goes
// to cluster 0.
KERNEL(256, kmeans_assign)(const float *products, const float *halves, float *best, float *second, unsigned *assignments, int points,
                              int clusters, int first_cluster) {
    int point = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (point >= points) return;
    const float *row = products + (size_t)point * clusters;
    const float *half = halves + first_cluster;
    float largest = -INFINITY, next = -INFINITY;
    int at = clusters;
    for (int start = lane; start < clusters; start += 32 * AHEAD) {
        float values[AHEAD];
        for (int i = 0; i < AHEAD; ++i) {
            int cluster = start + 32 * i;
            values[i] = cluster < clusters ? row[cluster] - half[cluster] : -INFINITY;
        }
        for (int i = 0; i < AHEAD; ++i)
            if (values[i] > largest) {
                next = largest;
                largest = values[i];
                at = start + 32 * i;
            } else if (values[i] > next) {
                next = values[i];
            }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        float other = __shfl_xor_sync(LANES, largest, distance), other_next = __shfl_xor_sync(LANES, next, distance);
        int other_at = __shfl_xor_sync(LANES, at, distance);
        float lesser = other > largest ? largest : other;
        if (other_next > next) next = other_next;
        if (lesser > next) next = lesser;
        if (other > largest || (other == largest && other_at < at)) {
            largest = other;
            at = other_at;
        }
    }
    if (lane != 0) return;
    bool first = first_cluster == 0;
    float before = first ? -INFINITY : best[point], after = first ? -INFINITY : second[point];
    bool found = largest > before;
    float lesser = found ? before : largest;
    if (lesser > next) next = lesser;
    second[point] = after > next ? after : next;
    if (found || first) {
        best[point] = largest;
        assignments[point] = found ? first_cluster + at : 0;
    }
}

// Assigns those points again whose best two values differ by less than products of f32 can tell: by their
// distances in f64, to the first of equals. The error of a product is at most `rounding` times the lengths of
// its two rows. One warp for each point.
KERNEL(256, kmeans_settle)(const float *x, const float *centroids, const float *best, const float *second, const float *longest,
                              unsigned *assignments, double rounding, int points, int clusters, int dim) {
    int point = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (point >= points) return;
    const float *row = x + (size_t)point * dim;
    double square = 0.0;
    for (int i = lane; i < dim; i += 32) square += (double)row[i] * row[i];
    square = warp_total(square);
    double half = *longest, size = sqrt(square) * sqrt(2.0 * half) + half;
    // Twice the error bound of each, with the error of values below the range of f32.
    double margin = 2.0 * (rounding * size + (dim + 1) * 1.1754943508222875e-38);
    if (size == 0.0 || (double)best[point] - (double)second[point] > margin) return;
    double least = INFINITY;
    unsigned nearest = 0;
    for (int cluster = 0; cluster < clusters; ++cluster) {
        const float *centroid = centroids + (size_t)cluster * dim;
        double distance = 0.0;
        for (int i = lane; i < dim; i += 32) {
            double difference = (double)row[i] - (double)centroid[i];
            distance += difference * difference;
        }
        distance = warp_total(distance);
        if (distance < least) {
            least = distance;
            nearest = cluster;
        }
    }
    if (lane == 0) assignments[point] = nearest;
}

// shift: the sum of the squared differences of two sets of centroids, of `count` numbers each. One block of
// WIDE threads.
KERNEL(1024, kmeans_shift)(const float *before, const float *after, double *shift, int count) {
    __shared__ double shared[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += WIDE) {
        double difference = (double)after[i] - (double)before[i];
        sum += difference * difference;
    }
    sum = wide_total(sum, shared);
    if (threadIdx.x == 0) *shift = sum;
}

// distances[point] = |x - c|^2 to its centroid, from the difference itself: the expanded square cancels where
// points lie on their centroids. One warp for each point.
KERNEL(256, kmeans_distances)(const float *x, const float *centroids, const unsigned *assignments, double *distances, int points,
                                 int dim) {
    int point = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (point >= points) return;
    const float *row = x + (size_t)point * dim, *centroid = centroids + (size_t)assignments[point] * dim;
    double square = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) {
        double difference = (double)row[i] - (double)centroid[i];
        square += difference * difference;
    }
    square = warp_total(square);
    if (threadIdx.x % 32 == 0) distances[point] = square;
}

// totals: the sum of the distances, and the number of points that changed their cluster. One block of WIDE
// threads.
KERNEL(1024, kmeans_totals)(const double *distances, const unsigned *assignments, const unsigned *before, double *totals, int points) {
    __shared__ double shared[32];
    double sum = 0.0, moved = 0.0;
    for (int i = threadIdx.x; i < points; i += WIDE) {
        sum += distances[i];
        moved += assignments[i] != before[i];
    }
    sum = wide_total(sum, shared);
    moved = wide_total(moved, shared);
    if (threadIdx.x == 0) {
        totals[0] = sum;
        totals[1] = moved;
    }
}

// places[point]: how many earlier points of its chunk are in its cluster. counters (chunks, clusters), zero
// before: the number of the chunk's points in each cluster. One block of WIDE threads for each chunk.
KERNEL(1024, kmeans_rank)(const unsigned *assignments, unsigned *places, unsigned *counters, int points, int clusters) {
    __shared__ unsigned chunk[WIDE];
    int point = blockIdx.x * WIDE + threadIdx.x;
    unsigned cluster = point < points ? assignments[point] : 0;
    chunk[threadIdx.x] = cluster;
    __syncthreads();
    if (point >= points) return;
    unsigned before = 0;
    for (unsigned i = 0; i < threadIdx.x; ++i) before += chunk[i] == cluster;
    places[point] = before;
    atomicAdd(&counters[(size_t)blockIdx.x * clusters + cluster], 1u);
}

// Turns each counter into the number of the cluster's points in earlier chunks, and writes the start and the
// size of each cluster. One block of WIDE threads.
KERNEL(1024, kmeans_offsets)(unsigned *counters, unsigned *starts, unsigned *sizes, int chunks, int clusters) {
    __shared__ unsigned sums[WIDE];
    unsigned total = 0;
    for (int first = 0; first < clusters; first += WIDE) {
        int cluster = first + threadIdx.x;
        unsigned size = 0;
        if (cluster < clusters)
            for (int chunk = 0; chunk < chunks; chunk += AHEAD) {
                unsigned counts[AHEAD];
                for (int i = 0; i < AHEAD; ++i)
                    counts[i] = chunk + i < chunks ? counters[(size_t)(chunk + i) * clusters + cluster] : 0;
                for (int i = 0; i < AHEAD; ++i) {
                    if (chunk + i < chunks) counters[(size_t)(chunk + i) * clusters + cluster] = size;
                    size += counts[i];
                }
            }
        sums[threadIdx.x] = size;
        for (int distance = 1; distance < WIDE; distance *= 2) {
            __syncthreads();
            unsigned below = (int)threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;
            __syncthreads();
            sums[threadIdx.x] += below;
        }
        __syncthreads();
        if (cluster < clusters) {
            starts[cluster] = total + sums[threadIdx.x] - size;
            sizes[cluster] = size;
        }
        total += sums[WIDE - 1];
        __syncthreads();
    }
}

// members: the points, by cluster and within it by index. One block of WIDE threads for each chunk.
KERNEL(1024, kmeans_place)(const unsigned *assignments, const unsigned *places, const unsigned *counters, const unsigned *starts,
                             unsigned *members, int points, int clusters) {
    int point = blockIdx.x * WIDE + threadIdx.x;
    if (point >= points) return;
    unsigned cluster = assignments[point];
    members[starts[cluster] + counters[(size_t)blockIdx.x * clusters + cluster] + places[point]] = point;
}

// Moves each centroid to the mean of its points; a centroid without points stays. Grid (clusters, dim /
// threads).
KERNEL(256, kmeans_means)(const float *x, const unsigned *members, const unsigned *starts, const unsigned *sizes, float *centroids,
                             int dim) {
    unsigned cluster = blockIdx.x, size = sizes[cluster], i = 0;
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= dim || size == 0) return;
    const unsigned *mine = members + starts[cluster];
    double sum = 0.0;
    for (; i + AHEAD <= size; i += AHEAD) {
        float values[AHEAD];
        for (int j = 0; j < AHEAD; ++j) values[j] = x[(size_t)mine[i + j] * dim + column];
        for (int j = 0; j < AHEAD; ++j) sum += values[j];
    }
    for (; i < size; ++i) sum += x[(size_t)mine[i] * dim + column];
    centroids[(size_t)cluster * dim + column] = (float)(sum / size);
}

// Gives each empty cluster, in order, half of the cluster that is largest at that time, the first of equals:
// both centroids become the largest cluster's, pushed apart by 1/1024. `sizes` then counts half of its points
// to each. One block of WIDE threads.
KERNEL(1024, kmeans_split)(float *centroids, unsigned *sizes, int clusters, int dim) {
    __shared__ unsigned long long shared[32];
    const float apart = 1.0f / 1024.0f;
    for (int next = 0;;) {
        // The largest by size, and among equals the lower number; the lowest number among the empty. Zero
        // where there is none.
        unsigned long long largest = 0, empty = 0;
        for (int cluster = threadIdx.x; cluster < clusters; cluster += WIDE) {
            unsigned size = sizes[cluster], low = ~(unsigned)cluster;
            unsigned long long key = (unsigned long long)size << 32 | low;
            if (key > largest) largest = key;
            if (size == 0 && cluster >= next && low > empty) empty = low;
        }
        largest = wide_largest(largest, shared);
        empty = wide_largest(empty, shared);
        if (empty == 0) return;
        int to = (int)~(unsigned)empty, from = (int)~(unsigned)largest;
        for (int i = threadIdx.x; i < dim; i += WIDE) {
            float sign = i % 2 == 0 ? 1.0f : -1.0f, value = centroids[(size_t)from * dim + i];
            centroids[(size_t)to * dim + i] = value * (1.0f + sign * apart);
            centroids[(size_t)from * dim + i] = value * (1.0f - sign * apart);
        }
        if (threadIdx.x == 0) {
            unsigned size = (unsigned)(largest >> 32);
            sizes[to] = size / 2;
            sizes[from] = size - size / 2;
        }
        __syncthreads();
        next = to + 1;
    }
}
}

HOST_KERNEL(kmeans_half_squares)
HOST_KERNEL(kmeans_longest)
HOST_KERNEL(kmeans_assign)
HOST_KERNEL(kmeans_settle)
HOST_KERNEL(kmeans_shift)
HOST_KERNEL(kmeans_distances)
HOST_KERNEL(kmeans_totals)
HOST_KERNEL(kmeans_rank)
HOST_KERNEL(kmeans_offsets)
HOST_KERNEL(kmeans_place)
HOST_KERNEL(kmeans_means)
HOST_KERNEL(kmeans_split)
