// One step of stochastic gradient descent over all parameters in one launch: v = momentum v + (g + decay p),
// p = p - rate v.
//
// The table of parameters is passed by value with the launch, so a step copies nothing to the device. A block
// takes BLOCK values of one parameter; `first` says which block of the grid is a parameter's first.
//
// The weight of a convolution is (kernel * channels, columns) here and (all_columns, kernel * padded) for
// cuDNN. Its gradient may come in cuDNN's layout and precision, and the step may write the new weight in that
// layout too; then a block takes TILES tiles of 32 x 32 values and transposes them in shared memory.
#include "device.cuh"

static constexpr int SLOTS = 70, BLOCK = 4096, TILE = 32, TILES = BLOCK / TILE / TILE;

// Whether numbers are in cuDNN's layout, and in which precision.
enum Kind { NONE, PACKED_F32, PACKED_BF16 };

struct Table {
    float *parameter[SLOTS];
    // f32 in the parameter's layout, or as `gradient_kind` says.
    const void *gradient[SLOTS];
    float *velocity[SLOTS];
    // Where the new weight goes in cuDNN's layout, as `packed_kind` says.
    void *packed[SLOTS];
    // The rate of each step of an epoch, and the number of the step; null where `rate` holds for this launch.
    const float *rates;
    const unsigned *step;
    unsigned length[SLOTS];
    unsigned first[SLOTS];
    unsigned short kernel[SLOTS], channels[SLOTS], padded[SLOTS], columns[SLOTS], all_columns[SLOTS];
    unsigned char gradient_kind[SLOTS], packed_kind[SLOTS];
    int slots;
    float momentum, decay, rate;
};
// A launch takes 4 KiB of arguments on every card.
static_assert(sizeof(Table) <= 4096, "the table must fit into a launch");

__device__ __forceinline__ float step(float *p, float *v, float g, const Table &table, float rate) {
    float velocity = fmaf(table.momentum, *v, fmaf(table.decay, *p, g));
    *v = velocity;
    return *p = fmaf(-rate, velocity, *p);
}

__device__ __forceinline__ float packed_value(const void *from, int kind, size_t at) {
    return kind == PACKED_BF16 ? to_float(static_cast<const bf16 *>(from)[at]) : static_cast<const float *>(from)[at];
}

// Blocks of 256 threads.
KERNEL(256, sgd_step)(const Table table) {
    __shared__ float tile[TILE][TILE + 1];
    int slot = 0;
    while (slot + 1 < table.slots && table.first[slot + 1] <= blockIdx.x) ++slot;
    unsigned block = blockIdx.x - table.first[slot];
    float rate = table.rates ? table.rates[*table.step] : table.rate;
    float *p = table.parameter[slot], *v = table.velocity[slot];
    const void *gradient = table.gradient[slot];
    int gradient_kind = table.gradient_kind[slot], packed_kind = table.packed_kind[slot];
    if (gradient_kind == NONE && packed_kind == NONE) {
        unsigned begin = block * BLOCK, end = min(begin + BLOCK, table.length[slot]);
        for (unsigned i = begin + threadIdx.x; i < end; i += blockDim.x) step(p + i, v + i, static_cast<const float *>(gradient)[i], table, rate);
        return;
    }
    int channels = table.channels[slot], padded = table.padded[slot], columns = table.columns[slot], all_columns = table.all_columns[slot];
    int rows = table.kernel[slot] * padded, across = (all_columns + TILE - 1) / TILE, x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    for (int i = 0; i < TILES; ++i) {
        int number = block * TILES + i, first_row = number / across * TILE, first_column = number % across * TILE;
        if (first_row >= rows) return;
        if (gradient_kind != NONE)
            for (int line = y; line < TILE; line += TILE / 4) {
                int column = first_column + line, row = first_row + x;
                if (column < columns && row < rows) tile[x][line] = packed_value(gradient, gradient_kind, (size_t)column * rows + row);
            }
        __syncthreads();
        for (int line = y; line < TILE; line += TILE / 4) {
            int row = first_row + line, column = first_column + x, pixel = row / padded, channel = row % padded;
            float value = 0.0f;
            if (row < rows && column < columns && channel < channels) {
                size_t at = (size_t)(pixel * channels + channel) * columns + column;
                float g = gradient_kind != NONE ? tile[line][x] : static_cast<const float *>(gradient)[at];
                value = step(p + at, v + at, g, table, rate);
            }
            tile[line][x] = value;
        }
        __syncthreads();
        if (packed_kind != NONE)
            for (int line = y; line < TILE; line += TILE / 4) {
                int column = first_column + line, row = first_row + x;
                if (column >= all_columns || row >= rows) continue;
                size_t at = (size_t)column * rows + row;
                if (packed_kind == PACKED_BF16) static_cast<bf16 *>(table.packed[slot])[at] = from_float<bf16>(tile[x][line]);
                else static_cast<float *>(table.packed[slot])[at] = tile[x][line];
            }
        // The next tile must not overwrite values that are still being read.
        __syncthreads();
    }
}

HOST_KERNEL(sgd_step)
