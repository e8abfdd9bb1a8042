// The weighted vote of the nearest neighbors, in f64: `metrics::WeightedKnn` for rows that are on the device.
//
// Rows are f32; the product of two f32 is exact in f64. Sums have a fixed order, so a result has the same
// bits in every launch.
#include "device.cuh"

static constexpr int THREADS = 256, WARPS = THREADS / 32;
// The most candidates of a query: `LARGEST_K` of top_k.cu.
static constexpr int MOST = 1024;
// Written in place of a class and a rank where the host must decide.
static constexpr unsigned UNDECIDED = 0xffffffffu;

// Returns the inner product of two rows to every lane of a warp.
__device__ __forceinline__ double product(const float *a, const float *b, int dim) {
    double sum = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) sum += (double)a[i] * (double)b[i];
    return warp_sum(sum);
}

// Divides each row by its length, in place; a row of zeros stays as it is. One warp takes a row.
KERNEL(256, knn_unit_rows)(float *rows, int count, int dim) {
    int number = blockIdx.x * WARPS + threadIdx.x / 32;
    if (number >= count) return;
    float *row = rows + (size_t)number * dim;
    double length = sqrt(product(row, row, dim));
    if (!(length > 0.0)) return;
    for (int i = threadIdx.x % 32; i < dim; i += 32) row[i] = (float)((double)row[i] / length);
}

// Writes the square of the length of each row. One warp takes a row.
KERNEL(256, knn_squares)(const float *rows, double *squares, int count, int dim) {
    int number = blockIdx.x * WARPS + threadIdx.x / 32;
    if (number >= count) return;
    const float *row = rows + (size_t)number * dim;
    double square = product(row, row, dim);
    if (threadIdx.x % 32 == 0) squares[number] = square;
}

// Writes sums[slice][dim], the sums of the columns over the rows of each slice. Blocks are (32, 8), grids
// (dim / 32, slices).
KERNEL(256, knn_column_sums)(const float *rows, double *sums, int count, int dim) {
    __shared__ double shared[8][32];
    int column = blockIdx.x * 32 + threadIdx.x;
    int each = (count + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * each, end = min(count, begin + each);
    double sum = 0.0;
    if (column < dim)
        for (int row = begin + (int)threadIdx.y; row < end; row += 8) sum += rows[(size_t)row * dim + column];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= dim) return;
    for (int other = 1; other < 8; ++other) sum += shared[other][threadIdx.x];
    sums[(size_t)blockIdx.y * dim + column] = sum;
}

// Writes facts[dim + 3]: the means of the columns, the mean and the largest of the squares, and the largest
// distance of a square from 1. The last two are NaN if a square is NaN. One block.
KERNEL(256, knn_facts)(const double *squares, const double *sums, double *facts, int count, int dim, int slices) {
    __shared__ double shared[3][THREADS];
    for (int column = threadIdx.x; column < dim; column += THREADS) {
        double sum = 0.0;
        for (int slice = 0; slice < slices; ++slice) sum += sums[(size_t)slice * dim + column];
        facts[column] = sum / count;
    }
    double sum = 0.0, largest = 0.0, from_one = 0.0;
    for (int row = threadIdx.x; row < count; row += THREADS) {
        double square = squares[row], distance = fabs(square - 1.0);
        sum += square;
        // Written so that a NaN stays a NaN.
        if (largest == largest && !(square <= largest)) largest = square;
        if (from_one == from_one && !(distance <= from_one)) from_one = distance;
    }
    shared[0][threadIdx.x] = sum;
    shared[1][threadIdx.x] = largest;
    shared[2][threadIdx.x] = from_one;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int other = 1; other < THREADS; ++other) {
        sum += shared[0][other];
        if (largest == largest && !(shared[1][other] <= largest)) largest = shared[1][other];
        if (from_one == from_one && !(shared[2][other] <= from_one)) from_one = shared[2][other];
    }
    facts[dim] = sum / count;
    facts[dim + 1] = largest;
    facts[dim + 2] = from_one;
}

// Writes a gallery without its common offset, (count, dim + 1): row / length - offset, with the length of unit
// rows in f64 or else 1, and the product of the offset and this difference. Also writes the square of each
// difference's length and the size of each product. One warp takes a row.
KERNEL(256, knn_gallery_less_offset)(const float *rows, const double *squares, const float *offset, float *to, double *squares_of_less,
                                     double *terms, int count, int dim, int unit) {
    int number = blockIdx.x * WARPS + threadIdx.x / 32;
    if (number >= count) return;
    const float *row = rows + (size_t)number * dim;
    float *written = to + (size_t)number * (dim + 1);
    double length = unit ? sqrt(squares[number]) : 1.0, term = 0.0, square = 0.0;
    for (int i = threadIdx.x % 32; i < dim; i += 32) {
        double less = (double)row[i] / length - (double)offset[i];
        float rounded = (float)less;
        term += (double)offset[i] * less;
        square += (double)rounded * (double)rounded;
        written[i] = rounded;
    }
    term = warp_sum(term);
    square = warp_sum(square);
    if (threadIdx.x % 32 != 0) return;
    written[dim] = (float)term;
    squares_of_less[number] = square;
    terms[number] = fabs((double)(float)term);
}

// Writes queries without the gallery's offset, (count, dim + 1): row - offset, and 1. Threads stride over the
// numbers written.
KERNEL(256, knn_queries_less_offset)(const float *rows, const float *offset, float *to, long long numbers, int dim) {
    long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < numbers; i += stride) {
        long long row = i / (dim + 1);
        int column = (int)(i % (dim + 1));
        to[i] = column == dim ? 1.0f : rows[row * dim + column] - offset[column];
    }
}

// Writes the largest of each of two arrays of `count` numbers; NaN if one is NaN. One block.
KERNEL(256, knn_largest)(const double *first, const double *second, double *largest, int count) {
    __shared__ double shared[2][THREADS];
    const double *arrays[2] = {first, second};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        double found = 0.0;
        for (int i = threadIdx.x; i < count; i += THREADS)
            if (found == found && !(arrays[half][i] <= found)) found = arrays[half][i];
        shared[half][threadIdx.x] = found;
    }
    __syncthreads();
    if (threadIdx.x >= 2) return;
    double found = 0.0;
    for (int i = 0; i < THREADS; ++i)
        if (found == found && !(shared[threadIdx.x][i] <= found)) found = shared[threadIdx.x][i];
    largest[threadIdx.x] = found;
}

struct Vote {
    // The length of a row, its length in the form in which it was multiplied (one more with an offset), neighbors
    // that vote, candidates of each query, classes.
    int dim, width, k, found, classes;
    // Whether the candidates are all rows there are, and whether all rows of the gallery have length 1.
    int complete, unit, unused;
    // Of the similarities' exponents.
    double temperature;
    // The length of the longest row of the gallery and the largest term of its offset, as they are multiplied;
    // twice the error of a product in f32 is at most `rounding` times the lengths and that term, plus
    // `underflow`.
    double longest, largest_term, rounding, underflow;
    // The largest distance from 1 of the square of a unit row.
    double unit_error;
};

// Takes the candidates of each query, (queries, found) by their products in f32, nearest first, and computes
// their similarities again in f64. `asked` holds the queries in the form in which they were multiplied. Of the k nearest, each adds exp((s - largest s) / temperature) to its
// class. Writes decided[query] = {the class with the highest score, the number of classes before that of the
// query}; of equal scores the lower class comes first. A query for which the candidates may lack one of the
// k nearest, or whose products are not finite, is undecided. One block of THREADS threads for each query.
KERNEL(256, knn_vote)(const float *queries, const float *asked, const float *gallery, const double *squares, const unsigned *labels,
                      const unsigned *wanted, const unsigned *indices, const float *products, unsigned *decided, Vote vote) {
    __shared__ double similarity[MOST], ordered[MOST];
    __shared__ unsigned row_of[MOST], label_of[MOST];
    __shared__ double best_score[THREADS];
    __shared__ unsigned best_class[THREADS];
    __shared__ int before;
    int found = vote.found, k = vote.k, warp = threadIdx.x / 32;
    const float *query = queries + (size_t)blockIdx.x * vote.dim;
    const unsigned *candidates = indices + (size_t)blockIdx.x * found;
    const float *rough = products + (size_t)blockIdx.x * found;

    double square = product(query, query, vote.dim);
    const float *multiplied = asked + (size_t)blockIdx.x * vote.width;
    double size = sqrt(product(multiplied, multiplied, vote.dim)) * vote.longest + vote.largest_term;
    double margin = size == 0.0 ? 0.0 : vote.rounding * size + vote.underflow;
    double last = rough[found - 1];
    // Written so that a NaN or an infinity decides nothing.
    bool seen = last == last && size <= 3.4028234663852886e38 && (vote.complete || margin == 0.0 || (double)rough[k - 1] - last > margin);
    if (!seen) {
        if (threadIdx.x == 0) decided[2 * blockIdx.x] = decided[2 * blockIdx.x + 1] = UNDECIDED;
        return;
    }

    double own = fabs(square - 1.0) <= vote.unit_error ? sqrt(square) : 1.0;
    for (int i = warp; i < found; i += WARPS) {
        unsigned row = candidates[i];
        double exact = product(query, gallery + (size_t)row * vote.dim, vote.dim);
        if (vote.unit) exact /= own * sqrt(squares[row]);
        if (threadIdx.x % 32 == 0) {
            similarity[i] = exact;
            row_of[i] = row;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < found; i += THREADS) {
        int nearer = 0;
        for (int j = 0; j < found; ++j)
            nearer += similarity[j] > similarity[i] || (similarity[j] == similarity[i] && row_of[j] < row_of[i]);
        if (nearer < k) {
            ordered[nearer] = similarity[i];
            label_of[nearer] = labels[row_of[i]];
        }
    }
    __syncthreads();
    double nearest = ordered[0];
    __syncthreads();
    for (int i = threadIdx.x; i < k; i += THREADS) ordered[i] = exp((ordered[i] - nearest) / vote.temperature);
    if (threadIdx.x == 0) before = 0;
    __syncthreads();

    auto score_of = [&](unsigned label) {
        double score = 0.0;
        for (int i = 0; i < k; ++i)
            if (label_of[i] == label) score += ordered[i];
        return score;
    };
    unsigned mine = wanted[blockIdx.x], best = UNDECIDED;
    double of_mine = score_of(mine), highest = -1.0;
    int ahead = 0;
    for (unsigned label = threadIdx.x; label < (unsigned)vote.classes; label += THREADS) {
        double score = score_of(label);
        ahead += score > of_mine || (score == of_mine && label < mine);
        if (score > highest) {
            highest = score;
            best = label;
        }
    }
    if (ahead > 0) atomicAdd(&before, ahead);
    best_score[threadIdx.x] = highest;
    best_class[threadIdx.x] = best;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int other = 1; other < THREADS; ++other)
        if (best_score[other] > highest || (best_score[other] == highest && best_class[other] < best)) {
            highest = best_score[other];
            best = best_class[other];
        }
    decided[2 * blockIdx.x] = best;
    decided[2 * blockIdx.x + 1] = before;
}

HOST_KERNEL(knn_unit_rows)
HOST_KERNEL(knn_squares)
HOST_KERNEL(knn_column_sums)
HOST_KERNEL(knn_facts)
HOST_KERNEL(knn_gallery_less_offset)
HOST_KERNEL(knn_queries_less_offset)
HOST_KERNEL(knn_largest)
HOST_KERNEL(knn_vote)
