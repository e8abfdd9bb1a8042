// The rows of the losses: these kernels take scores (products of features, computed by cuBLAS), compute each
// row's part of the loss, and replace the scores by the gradient with respect to them. One block takes one
// row. Sums are in a fixed order, and those that must not lose digits are in f64. Crate `losses`, which
// computes the same on the CPU, gives the equations and says why a row's largest score is kept apart.
#include "device.cuh"

// The same as block_sum of device.cuh, in f64.
__device__ __forceinline__ double block_sum(double x, double *shared) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    double total = 0.0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += shared[warp];
    return total;
}

// The larger score is chosen, and on a tie the lower place. A NaN is never chosen; it becomes visible in the
// sums.
struct Best {
    float score;
    int place;
};

__device__ __forceinline__ bool before(Best a, Best b) { return a.score > b.score || (a.score == b.score && a.place < b.place); }

__device__ __forceinline__ Best block_best(Best mine, Best *shared) {
    for (int distance = 16; distance > 0; distance /= 2) {
        Best other = {__shfl_xor_sync(0xffffffffu, mine.score, distance), __shfl_xor_sync(0xffffffffu, mine.place, distance)};
        if (before(other, mine)) mine = other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
    __syncthreads();
    Best best = shared[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp)
        if (before(shared[warp], best)) best = shared[warp];
    return best;
}

static constexpr float NOTHING = -INFINITY;

struct InvaSpreadSettings {
    double temperature, negative_weight;
    // 0: all negatives; 1: the hardest half; 2: the easiest half.
    int negatives;
};

// Keeps the `keep` best negatives of a row (the most similar for sign 1, the least similar for -1; ties go to
// the lower place) and sets the others to minus infinity. Each score's rank is counted: rows are short (a
// batch), and each thread ranks a few scores.
__device__ void leave_out(float *row, int views, int own, int positive, int keep, float sign, unsigned char *drop) {
    for (int k = threadIdx.x; k < views; k += blockDim.x) {
        int rank = 0;
        if (k != own && k != positive) {
            float mine = sign * row[k];
            for (int j = 0; j < views; ++j) {
                if (j == own || j == positive) continue;
                float theirs = sign * row[j];
                rank += theirs > mine || (theirs == mine && j < k);
            }
        }
        drop[k] = rank >= keep;
    }
    __syncthreads();
    for (int k = threadIdx.x; k < views; k += blockDim.x)
        if (drop[k]) row[k] = NOTHING;
    __syncthreads();
}

// scores: (views, views) inner products. Shared memory: one byte for each view.
KERNEL(256, invaspread_rows)(float *scores, float *losses, int views, InvaSpreadSettings settings) {
    DYNAMIC_SHARED(unsigned char, drop);
    __shared__ Best best[32];
    __shared__ double sums[32];
    int own = blockIdx.x, positive = (own + views / 2) % views;
    float *row = scores + (size_t)own * views;
    double inverse = 1.0 / settings.temperature, m = settings.negative_weight;
    bool all = settings.negatives == 0;
    double weight = all ? m : 0.5 * m, share = all ? 1.0 / views : 1.0 / (views / 2 + 1);

    for (int k = threadIdx.x; k < views; k += blockDim.x) row[k] = k == own ? NOTHING : row[k] * (float)inverse;
    __syncthreads();
    if (!all) leave_out(row, views, own, positive, views / 2, settings.negatives == 1 ? 1.0f : -1.0f, drop);

    // Among equal scores the positive comes first, so a higher score belongs to a negative.
    Best mine = {NOTHING, views};
    for (int k = threadIdx.x; k < views; k += blockDim.x) {
        Best here = {row[k], k == positive ? -1 : k};
        if (before(here, mine)) mine = here;
    }
    Best top = block_best(mine, best);
    int top_place = top.place == -1 || top.place == views ? positive : top.place;
    float top_score = row[top_place], positive_score = row[positive];
    mine = {NOTHING, views};
    for (int k = threadIdx.x; k < views; k += blockDim.x)
        if (k != top_place) {
            Best here = {row[k], k};
            if (before(here, mine)) mine = here;
        }
    float second = block_best(mine, best).score;
    __syncthreads();
    if (second == NOTHING) {
        // Either the batch has one image, and its loss is zero, or some features are not finite.
        for (int k = threadIdx.x; k < views; k += blockDim.x) row[k] = 0.0f;
        if (threadIdx.x == 0) losses[own] = views == 2 ? 0.0f * positive_score : NAN;
        return;
    }

    bool top_is_negative = top_place != positive;
    double negatives = 0.0;
    float e_positive = top_is_negative ? expf(positive_score - second) : 0.0f;
    for (int k = threadIdx.x; k < views; k += blockDim.x) {
        float e = k == top_place || k == positive ? 0.0f : expf(row[k] - second);
        row[k] = e;
        negatives += e;
    }
    negatives = block_sum(negatives, sums);
    double rest = m * negatives + e_positive;
    double gap = (double)(top_score - second), rest_below_top = rest * exp(-gap);
    double a_top = top_is_negative ? m : 1.0;
    double above_top = log1p(a_top - 1.0 + rest_below_top);
    double to_p = exp(-gap - above_top);
    double ratios = 0.0, log_complements = 0.0;
    for (int k = threadIdx.x; k < views; k += blockDim.x) {
        float p = row[k] * (float)to_p;
        ratios += p / (1.0f - p);
        log_complements += log1pf(-p);
    }
    ratios = block_sum(ratios, sums);
    log_complements = block_sum(log_complements, sums);

    double log_p = (double)(positive_score - top_score) - above_top, p_top = exp(-above_top);
    double weighted, settled_top, through_top = 0.0;
    if (top_is_negative) {
        double others = rest_below_top, kept = 1.0;
        if (m > 1.0) {
            double sum = m - 1.0 + rest_below_top;
            kept = rest_below_top / sum;
            others = log(sum);
        } else {
            others = log(rest) - gap;
        }
        weighted = weight * (log_complements + others - above_top);
        double q_top = m * p_top;
        settled_top = q_top + weight * (p_top * kept - q_top * ratios);
        through_top = weight * p_top * exp(-gap - others);
    } else {
        weighted = weight * log_complements;
        settled_top = -(rest_below_top / (1.0 + rest_below_top)) - weight * p_top * ratios;
    }
    double outer = share * inverse, spread = to_p * (1.0 - weight * ratios) - through_top;
    float to_q = (float)(m * spread * outer), to_ratio = (float)(weight * outer);
    for (int k = threadIdx.x; k < views; k += blockDim.x) {
        float e = row[k], p = e * (float)to_p;
        float gradient = e * to_q + p / (1.0f - p) * to_ratio;
        if (k == top_place) gradient = (float)(settled_top * outer);
        else if (k == positive) gradient = (float)((e_positive * spread - 1.0) * outer);
        row[k] = gradient;
    }
    if (threadIdx.x == 0) losses[own] = (float)(-(log_p + weighted) * share);
}

// Softmax cross-entropy of rows of scores with the column labels[row]. The score that is used is scores[k] *
// scale * column_scale[k]; the gradient is with respect to scores[k] and includes those factors and the
// mean's 1 / rows. column_scale may be null.
KERNEL(256, cross_entropy_rows)(float *scores, const unsigned *labels, const float *column_scale, float *losses,
                                              int columns, float scale, float share) {
    __shared__ Best best[32];
    __shared__ double sums[32];
    float *row = scores + (size_t)blockIdx.x * columns;
    int label = (int)labels[blockIdx.x];
    Best mine = {NOTHING, columns};
    for (int k = threadIdx.x; k < columns; k += blockDim.x) {
        float z = row[k] * (column_scale ? scale * column_scale[k] : scale);
        Best here = {z, k};
        if (k != label && before(here, mine)) mine = here;
    }
    float top = block_best(mine, best).score;
    float about = top == NOTHING ? 0.0f : top;
    double sum = 0.0;
    for (int k = threadIdx.x; k < columns; k += blockDim.x)
        if (k != label) {
            float z = row[k] * (column_scale ? scale * column_scale[k] : scale);
            // Minus infinity results from features or weights that are not finite. It must not be treated as
            // the score of an unlikely class.
            sum += z == NOTHING ? NAN : expf(z - about);
        }
    sum = block_sum(sum, sums);
    double own = (double)(row[label] * (column_scale ? scale * column_scale[label] : scale)), loss = 0.0, others = 0.0;
    __syncthreads();
    // The same formula as on the CPU: the probability of the other columns is summed, never computed as 1 -
    // p. With no other column the loss is 0, and NaN where the label's score is not finite.
    if (sum == 0.0 || own - own != 0.0) {
        loss = others = own - own;
    } else {
        double x = (double)about + log(sum) - own;
        double e = exp(x > 0.0 ? -x : x);
        loss = (x > 0.0 ? x : 0.0) + log1p(e);
        others = (x > 0.0 ? 1.0 : e) / (1.0 + e);
        if (!(x == x)) loss = x, others = x;
    }
    float each = (float)(sum > 0.0 ? others / sum * share : 0.0 * sum);
    for (int k = threadIdx.x; k < columns; k += blockDim.x) {
        float factor = column_scale ? scale * column_scale[k] : scale;
        row[k] = k == label ? (float)(-others * share) * factor : expf(row[k] * factor - about) * each * factor;
    }
    if (threadIdx.x == 0) losses[blockIdx.x] = (float)(loss * share);
}

// sums[row] = the sum of exp(f . v / temperature) over the row's own entry and its noise. NCE computes its
// normalizer from these.
KERNEL(256, nce_sums)(const float *features, const float *bank, const unsigned *index, const unsigned *noise, double *sums_out,
                                    int dim, int negatives, double inverse) {
    DYNAMIC_SHARED(float, feature);
    __shared__ double sums[32];
    int row = blockIdx.x, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) feature[i] = features[(size_t)row * dim + i];
    __syncthreads();
    double total = 0.0;
    for (int j = threadIdx.x / 32; j <= negatives; j += warps) {
        unsigned image = j == 0 ? index[row] : noise[(size_t)row * negatives + j - 1];
        float product = 0.0f;
        for (int i = lane; i < dim; i += 32) product = fmaf(feature[i], bank[(size_t)image * dim + i], product);
        product = warp_sum(product);
        if (lane == 0) total += exp((double)product * inverse);
    }
    total = block_sum(total, sums);
    if (threadIdx.x == 0) sums_out[row] = total;
}

// Each row's part of the NCE loss and its gradient with respect to the features. Each warp takes one entry at
// a time; the warps' parts of the gradient are added in their order. Shared memory: dim floats, and dim more
// for each warp.
KERNEL(256, nce_rows)(const float *features, const float *bank, const unsigned *index, const unsigned *noise,
                                    double log_z, float *losses, float *gradient, int dim, int negatives, double inverse, double c,
                                    double share) {
    DYNAMIC_SHARED(float, feature);
    __shared__ double sums[32];
    const double epsilon = 1e-7;
    float *part = feature + dim;
    int row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) feature[i] = features[(size_t)row * dim + i];
    for (int i = threadIdx.x; i < dim * warps; i += blockDim.x) part[i] = 0.0f;
    __syncthreads();
    double loss = 0.0;
    for (int j = warp; j <= negatives; j += warps) {
        const float *entry = bank + (size_t)(j == 0 ? index[row] : noise[(size_t)row * negatives + j - 1]) * dim;
        float product = 0.0f;
        for (int i = lane; i < dim; i += 32) product = fmaf(feature[i], entry[i], product);
        double log_p = (double)warp_sum(product) * inverse - log_z, p = exp(log_p), all = p + c + epsilon;
        // d/ds of -log(P / (P + c + eps)) is -(c + eps) / (P + c + eps); of -log(c / (P + c + eps)) it is P /
        // (P + c + eps).
        double slope = (j == 0 ? -(c + epsilon) / all : p / all) * inverse * share;
        if (lane == 0) loss += j == 0 ? log(all) - log_p : log1p((p + epsilon) / c);
        for (int i = lane; i < dim; i += 32) part[warp * dim + i] = fmaf((float)slope, entry[i], part[warp * dim + i]);
    }
    loss = block_sum(loss, sums);
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        float total = 0.0f;
        for (int w = 0; w < warps; ++w) total += part[w * dim + i];
        gradient[(size_t)row * dim + i] = total;
    }
    if (threadIdx.x == 0) losses[row] = (float)(loss * share);
}

// gradient[row] -= (gradient . weight) / |weight|^2 weight: removes the part along a weight that is divided
// by its length. One warp for each row.
KERNEL(256, across_weight)(float *gradient, const float *weight, const float *inverse_lengths, int rows, int dim) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float *g = gradient + (size_t)row * dim;
    const float *w = weight + (size_t)row * dim;
    float along = 0.0f;
    for (int i = lane; i < dim; i += 32) along = fmaf(g[i], w[i], along);
    along = warp_sum(along) * inverse_lengths[row] * inverse_lengths[row];
    for (int i = lane; i < dim; i += 32) g[i] = fmaf(-along, w[i], g[i]);
}

// Triplet: a row's distances, its negative (given, or the nearest second view of another image), its loss,
// and the scales of the unit differences in the gradients: near[row] and away[row] hold share / distance if
// the margin is violated, else 0.
KERNEL(256, triplet_choose)(const float *anchors, const float *positives, const unsigned *given, unsigned *negatives,
                                          float *near, float *away, float *losses, int rows, int dim, float margin, float share) {
    __shared__ Best best[32];
    int row = blockIdx.x, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const float *a = anchors + (size_t)row * dim;
    Best mine = {NOTHING, rows};
    float to_own = 0.0f;
    for (int j = threadIdx.x / 32; j < rows; j += warps) {
        if (given && j != row && j != (int)given[row]) continue;
        float square = 0.0f;
        for (int i = lane; i < dim; i += 32) {
            float d = a[i] - positives[(size_t)j * dim + i];
            square = fmaf(d, d, square);
        }
        float distance = sqrtf(warp_sum(square));
        if (j == row) {
            to_own = distance;
        } else {
            // A NaN distance is chosen before all others and makes the loss infinite.
            Best here = {distance != distance ? INFINITY : -distance, j};
            if (before(here, mine)) mine = here;
        }
    }
    // Every warp but one holds zero.
    __shared__ float own[32];
    if (lane == 0) own[threadIdx.x / 32] = to_own;
    Best chosen = block_best(mine, best);
    if (threadIdx.x == 0) {
        float positive = own[row % warps], negative = -chosen.score;
        float violation = positive - negative + margin;
        bool counts = !(violation <= 0.0f);
        losses[row] = counts ? violation * share : 0.0f;
        near[row] = counts && positive > 0.0f ? share / positive : 0.0f;
        away[row] = counts && negative > 0.0f ? share / negative : 0.0f;
        negatives[row] = (unsigned)chosen.place;
    }
}

// The gradients of both sides. One block for each row and one thread for each column; the terms of other
// rows' negatives are added in order.
KERNEL(256, triplet_gradients)(const float *anchors, const float *positives, const unsigned *negatives, const float *near,
                                             const float *away, float *to_anchor, float *to_positive, int rows, int dim) {
    int row = blockIdx.x;
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
        size_t at = (size_t)row * dim + i;
        float pull = (anchors[at] - positives[at]) * near[row];
        float push = (anchors[at] - positives[(size_t)negatives[row] * dim + i]) * away[row];
        to_anchor[at] = pull - push;
        float total = -pull;
        for (int j = 0; j < rows; ++j)
            if ((int)negatives[j] == row) total += (anchors[(size_t)j * dim + i] - positives[at]) * away[j];
        to_positive[at] = total;
    }
}

// Moves the memory's entries of `index` towards the features. One warp for each image of the batch; where an
// image occurs more than once, the warp of its first place makes all its moves, in order.
KERNEL(256, memory_bank_update)(float *bank, const unsigned *index, const float *features, int rows, int dim, float kept,
                                              float taken) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    for (int before_it = 0; before_it < row; ++before_it)
        if (index[before_it] == index[row]) return;
    float *entry = bank + (size_t)index[row] * dim;
    for (int j = row; j < rows; ++j) {
        if (index[j] != index[row]) continue;
        const float *feature = features + (size_t)j * dim;
        double square = 0.0;
        for (int i = lane; i < dim; i += 32) {
            double moved = entry[i] * kept + feature[i] * taken;
            square += moved * moved;
        }
        square = warp_sum(square);
        if (square == 0.0) continue;
        float length = (float)sqrt(square);
        for (int i = lane; i < dim; i += 32) entry[i] = (entry[i] * kept + feature[i] * taken) / length;
    }
}

// total = the sum of the rows' losses, in f64. One block.
KERNEL(256, sum_losses)(const float *losses, float *total, int rows) {
    __shared__ double sums[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < rows; i += blockDim.x) sum += losses[i];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) *total = (float)sum;
}

HOST_KERNEL(invaspread_rows)
HOST_KERNEL(cross_entropy_rows)
HOST_KERNEL(nce_sums)
HOST_KERNEL(nce_rows)
HOST_KERNEL(across_weight)
HOST_KERNEL(triplet_choose)
HOST_KERNEL(triplet_gradients)
HOST_KERNEL(memory_bank_update)
HOST_KERNEL(sum_losses)
