// The weighted vote of the nearest neighbors and the scores of retrieval, in f64: `metrics::WeightedKnn` and
// `metrics::RetrievalMetrics` for rows that are on the device.
//
// Rows are f32; the product of two f32 is exact in f64. Sums have a fixed order, so a result has the same
// bits in every launch.
#include "device.cuh"

static constexpr int THREADS = 256, WARPS = THREADS / 32;
// The most candidates of a query: `LARGEST_K` of top_k.cu.
static constexpr int MOST = 1024;
// Written in place of a class and a rank where the host must decide.
static constexpr unsigned UNDECIDED = 0xffffffffu;
// The same in place of a neighbor's place.
static constexpr double UNSEEN = -2.0;

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

struct Search {
    // The length of a row, its length in the form in which it was multiplied (one more with an offset), neighbors
    // that count, candidates of each query.
    int dim, width, k, found;
    // Whether the candidates are all rows there are, and whether all rows of the gallery have length 1.
    int complete, unit;
    // The length of the longest row of the gallery and the largest term of its offset, as they are multiplied;
    // twice the error of a product in f32 is at most `rounding` times the lengths and that term, plus
    // `underflow`.
    double longest, largest_term, rounding, underflow;
    // The largest distance from 1 of the square of a unit row.
    double unit_error;
};

struct Vote {
    Search search;
    // Of the similarities' exponents.
    double temperature;
    int classes, unused;
};

// The candidates of a query, and its neighbors in order.
struct Ordered {
    // Similarity, row and rank of each candidate.
    double similarity[MOST];
    unsigned row_of[MOST];
    // Similarity and label of each neighbor, the nearest first.
    double nearest[MOST];
    unsigned label_of[MOST];
};

// Takes the candidates of the block's query, (queries, found) by their products in f32, nearest first, computes
// their similarities again in f64 and puts the k nearest in order; of equal similarities the lower row comes
// first. `asked` holds the queries in the form in which they were multiplied. Returns false to all threads if the
// candidates may lack one of the k nearest, or the products are not finite.
__device__ bool put_in_order(const float *queries, const float *asked, const float *gallery, const double *squares, const unsigned *labels,
                             const unsigned *indices, const float *products, const Search &search, Ordered &ordered) {
    int found = search.found, k = search.k, warp = threadIdx.x / 32;
    const float *query = queries + (size_t)blockIdx.x * search.dim;
    const unsigned *candidates = indices + (size_t)blockIdx.x * found;
    const float *rough = products + (size_t)blockIdx.x * found;

    double square = product(query, query, search.dim);
    const float *multiplied = asked + (size_t)blockIdx.x * search.width;
    double size = sqrt(product(multiplied, multiplied, search.dim)) * search.longest + search.largest_term;
    double margin = size == 0.0 ? 0.0 : search.rounding * size + search.underflow;
    double last = rough[found - 1];
    // Written so that a NaN or an infinity decides nothing.
    bool seen = last == last && size <= 3.4028234663852886e38 && (search.complete || margin == 0.0 || (double)rough[k - 1] - last > margin);
    if (!seen) return false;

    double own = fabs(square - 1.0) <= search.unit_error ? sqrt(square) : 1.0;
    for (int i = warp; i < found; i += WARPS) {
        unsigned row = candidates[i];
        double exact = product(query, gallery + (size_t)row * search.dim, search.dim);
        if (search.unit) exact /= own * sqrt(squares[row]);
        if (threadIdx.x % 32 == 0) {
            ordered.similarity[i] = exact;
            ordered.row_of[i] = row;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < found; i += THREADS) {
        double own_similarity = ordered.similarity[i];
        unsigned own_row = ordered.row_of[i];
        int nearer = 0;
        for (int j = 0; j < found; ++j)
            nearer += ordered.similarity[j] > own_similarity || (ordered.similarity[j] == own_similarity && ordered.row_of[j] < own_row);
        if (nearer < k) {
            ordered.nearest[nearer] = own_similarity;
            ordered.label_of[nearer] = labels[own_row];
        }
    }
    __syncthreads();
    return true;
}

// Of the k nearest rows of a query, each adds exp((s - largest s) / temperature) to its class. Writes
// decided[query] = {the class with the highest score, the number of classes before that of the query}; of equal
// scores the lower class comes first. One block of THREADS threads for each query.
KERNEL(256, knn_vote)(const float *queries, const float *asked, const float *gallery, const double *squares, const unsigned *labels,
                      const unsigned *indices, const float *products, const unsigned *wanted, unsigned *decided, Vote vote) {
    __shared__ Ordered found;
    __shared__ double best_score[THREADS];
    __shared__ unsigned best_class[THREADS];
    __shared__ int before;
    double *ordered = found.nearest;
    unsigned *label_of = found.label_of;
    int k = vote.search.k;
    if (!put_in_order(queries, asked, gallery, squares, labels, indices, products, vote.search, found)) {
        if (threadIdx.x == 0) decided[2 * blockIdx.x] = decided[2 * blockIdx.x + 1] = UNDECIDED;
        return;
    }
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

// Walks along the k nearest rows of a query, of which `relevant[query]` = R in the whole gallery have its class.
// Writes scores[query] = {the place of the first row of its class, -1 if there is none, UNSEEN if the candidates
// do not decide; the number of rows of its class among the first R; the sum of the precisions at their places}.
// One block of THREADS threads for each query.
KERNEL(256, knn_retrieve)(const float *queries, const float *asked, const float *gallery, const double *squares, const unsigned *labels,
                          const unsigned *indices, const float *products, const unsigned *wanted, const unsigned *relevant, double *scores,
                          Search search) {
    __shared__ Ordered found;
    bool decided = put_in_order(queries, asked, gallery, squares, labels, indices, products, search, found);
    if (threadIdx.x != 0) return;
    double *score = scores + 3 * (size_t)blockIdx.x;
    if (!decided) {
        score[0] = UNSEEN;
        score[1] = score[2] = 0.0;
        return;
    }
    int first = -1, hits = 0, within = 0, r = (int)relevant[blockIdx.x];
    double precisions = 0.0;
    for (int place = 0; place < search.k && (place < r || first < 0); ++place) {
        if (found.label_of[place] != wanted[blockIdx.x]) continue;
        if (first < 0) first = place;
        ++hits;
        if (place < r) {
            within = hits;
            precisions += (double)hits / (double)(place + 1);
        }
    }
    score[0] = first;
    score[1] = within;
    score[2] = precisions;
}

HOST_KERNEL(knn_unit_rows)
HOST_KERNEL(knn_squares)
HOST_KERNEL(knn_column_sums)
HOST_KERNEL(knn_facts)
HOST_KERNEL(knn_gallery_less_offset)
HOST_KERNEL(knn_queries_less_offset)
HOST_KERNEL(knn_largest)
HOST_KERNEL(knn_vote)
HOST_KERNEL(knn_retrieve)
