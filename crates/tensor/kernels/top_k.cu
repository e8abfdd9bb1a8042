// The k largest scores of each row, in the order of `metrics::top_k`: by descending score, then by ascending
// index.
//
// A row holds the scores of one query against a block of the gallery. The blocks come in order of index, and
// the best scores so far are carried from each to the next. One block of threads takes a row and reads it
// once. A score enters a buffer in shared memory, as a key that orders by score and index at once, only if it
// is above the floor, the k-th best so far: a later score has a larger index and loses a tie. When the buffer
// is nearly full, a radix select cuts it back to the k best, which raises the floor. It takes the digits of
// the keys from the top (11, 11 and 10 bits of the score, then the same bits of the index), counts the keys
// that share all earlier digits, and ends at the first digit after which exactly k keys are left; so it reads
// the index only where scores tie. Threads race for places in the buffer, but which keys stay does not depend
// on their places, and the k remaining keys are sorted.
//
// NaN and minus infinity are above no floor and never chosen. A place that stays empty holds the key 0.
#include "device.cuh"

using Key = unsigned long long;

static constexpr unsigned LANES = 0xffffffffu;
static constexpr int THREADS = 256;
// Scores that a thread loads at the same time, scores that a block takes together, and the number of keys
// that the buffer can hold: the best k, and twice as many as can arrive between two checks of the count, so
// that cuts are rare.
static constexpr int EACH = 4, TILE = THREADS * EACH, CAPACITY = 3 * TILE;
static constexpr int LARGEST_K = 1024, BINS = 2048;
static_assert(LARGEST_K + TILE <= CAPACITY, "after a cut there is room for a tile");
static_assert(LARGEST_K == TILE, "a thread carries as many keys as it reads scores");

struct Buffer {
    Key keys[CAPACITY];
    unsigned histogram[BINS];
    int warp_counts[THREADS / 32];
    // Number of keys held.
    int count;
    // Results of `find_digit`: the digit of the key that is sought, how many keys have this digit, and the
    // rank of the sought key among those.
    int digit, with_digit, wanted;
};

// No score has the key zero, and zero lies below all keys.
__device__ __forceinline__ Key key_of(float score, unsigned index) {
    unsigned bits = __float_as_uint(score + 0.0f); // -0 + 0 is 0: the two zeros tie
    unsigned ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (Key)ordered << 32 | ~index;
}

__device__ __forceinline__ float score_of(Key key) {
    unsigned ordered = (unsigned)(key >> 32);
    return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

// Returns the sum of `x` over this lane and those before it.
__device__ __forceinline__ int sum_up_to_lane(int x) {
    int lane = threadIdx.x % 32;
    for (int distance = 1; distance < 32; distance *= 2) {
        int below = __shfl_up_sync(LANES, x, distance);
        if (lane >= distance) x += below;
    }
    return x;
}

// Adds each thread's nonzero keys to the buffer. All threads of a warp call it together.
__device__ __forceinline__ void append(const Key (&mine)[EACH], Buffer &buffer) {
    int found = 0;
    for (int i = 0; i < EACH; ++i) found += mine[i] != 0;
    if (__ballot_sync(LANES, found > 0) == 0) return;
    int up_to_here = sum_up_to_lane(found), start = 0;
    if (threadIdx.x % 32 == 31) start = atomicAdd(&buffer.count, up_to_here);
    start = __shfl_sync(LANES, start, 31) + up_to_here - found;
    for (int i = 0; i < EACH; ++i)
        if (mine[i] != 0) buffer.keys[start++] = mine[i];
}

// Finds the digit of the `wanted`-th largest key counted in the histogram.
__device__ void find_digit(Buffer &buffer, int wanted) {
    static constexpr int OWN = BINS / THREADS;
    int warp = threadIdx.x / 32, top = BINS - 1 - OWN * (int)threadIdx.x, own = 0;
    for (int i = 0; i < OWN; ++i) own += buffer.histogram[top - i];
    int up_to_here = sum_up_to_lane(own);
    if (threadIdx.x % 32 == 31) buffer.warp_counts[warp] = up_to_here;
    __syncthreads();
    for (int before = 0; before < warp; ++before) up_to_here += buffer.warp_counts[before];
    int left = wanted - (up_to_here - own);
    if (left > 0 && left <= own) {
        int bin = top;
        while (left > (int)buffer.histogram[bin]) left -= buffer.histogram[bin--];
        buffer.digit = bin;
        buffer.with_digit = buffer.histogram[bin];
        buffer.wanted = left;
    }
    __syncthreads();
}

// Keeps the k largest of more than k keys, in no order, and returns the new floor: the k-th score or, if
// fewer bits separated it from the next score, a value between the two.
__device__ float cut(Buffer &buffer, int k) {
    int count = buffer.count, wanted = k, shift = 64;
    Key least = 0;
    for (int pass = 0;; ++pass) {
        int width = pass % 3 == 2 ? 10 : 11;
        shift -= width;
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) buffer.histogram[bin] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += THREADS) {
            Key key = buffer.keys[i];
            if ((key ^ least) >> shift >> width == 0) atomicAdd(&buffer.histogram[key >> shift & ((1u << width) - 1)], 1u);
        }
        __syncthreads();
        find_digit(buffer, wanted);
        least |= (Key)buffer.digit << shift;
        wanted = buffer.wanted;
        if (buffer.with_digit == wanted) break;
    }
    if (threadIdx.x == 0) buffer.count = 0;
    // The keys that stay move to places that have been read already.
    for (int start = 0; start < count; start += TILE) {
        Key mine[EACH];
        for (int i = 0; i < EACH; ++i) {
            int at = start + i * THREADS + threadIdx.x;
            Key key = at < count ? buffer.keys[at] : 0;
            mine[i] = key >= least ? key : 0;
        }
        __syncthreads();
        append(mine, buffer);
    }
    __syncthreads();
    return score_of(least);
}

// Sorts the first `size` keys, a power of two, largest first, with a bitonic network.
__device__ void sort_keys(Key *keys, int size) {
    for (int run = 2; run <= size; run *= 2)
        for (int distance = run / 2; distance > 0; distance /= 2) {
            for (int pair = threadIdx.x; pair < size / 2; pair += THREADS) {
                int low = 2 * pair - (pair & (distance - 1));
                Key first = keys[low], second = keys[low + distance];
                if ((first < second) == ((low & run) == 0)) {
                    keys[low] = second;
                    keys[low + distance] = first;
                }
            }
            __syncthreads();
        }
}

__device__ __forceinline__ void load_tile(const float *row, int columns, int tile, float (&scores)[EACH]) {
    for (int i = 0; i < EACH; ++i) {
        int column = tile + i * THREADS + threadIdx.x;
        scores[i] = column < columns ? row[column] : -INFINITY;
    }
}

// best: (rows, k) keys, largest first. scores: (rows, columns), for the gallery's rows from `first_column` on
// and the queries from `first_query` on. With `carry`, the keys in `best` take part. With `exclude_self`,
// query i leaves out the gallery's row i. k is 1 to LARGEST_K. One block of THREADS threads for each row.
KERNEL(256, top_k_merge)(const float *scores, Key *best, int columns, int k, int first_query, int first_column, int carry,
                                       int exclude_self) {
    __shared__ Buffer buffer;
    const float *row = scores + (size_t)blockIdx.x * columns;
    Key *kept = best + (size_t)blockIdx.x * k;
    // The query's own column, or a column that does not exist.
    unsigned itself = exclude_self ? (unsigned)first_query + blockIdx.x - (unsigned)first_column : (unsigned)columns;
    float floor = -INFINITY;
    if (threadIdx.x == 0) buffer.count = 0;
    __syncthreads();
    if (carry) {
        Key mine[EACH];
        for (int i = 0; i < EACH; ++i) {
            int at = i * THREADS + threadIdx.x;
            mine[i] = at < k ? kept[at] : 0;
        }
        append(mine, buffer);
        Key last = kept[k - 1];
        if (last != 0) floor = score_of(last);
    }

    float ahead[EACH];
    load_tile(row, columns, 0, ahead);
    for (int tile = 0; tile < columns; tile += TILE) {
        Key mine[EACH];
        for (int i = 0; i < EACH; ++i) {
            unsigned column = tile + i * THREADS + threadIdx.x;
            mine[i] = ahead[i] > floor && column != itself ? key_of(ahead[i], (unsigned)first_column + column) : 0;
        }
        load_tile(row, columns, tile + TILE, ahead);
        append(mine, buffer);
        __syncthreads();
        int count = buffer.count;
        __syncthreads();
        if (count > CAPACITY - TILE) floor = cut(buffer, k);
    }

    if (buffer.count > k) cut(buffer, k);
    int size = 1;
    while (size < k) size *= 2;
    for (int i = buffer.count + threadIdx.x; i < size; i += THREADS) buffer.keys[i] = 0;
    __syncthreads();
    sort_keys(buffer.keys, size);
    for (int i = threadIdx.x; i < k; i += THREADS) kept[i] = buffer.keys[i];
}

// Splits the keys into indices and similarities. The key 0 becomes the largest index and NaN. Threads stride
// over `count` keys.
KERNEL(256, top_k_write)(const Key *best, unsigned *indices, float *similarities, long long count) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        indices[i] = ~(unsigned)best[i];
        similarities[i] = score_of(best[i]);
    }
}

HOST_KERNEL(top_k_merge)
HOST_KERNEL(top_k_write)
