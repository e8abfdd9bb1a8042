// One step of stochastic gradient descent over all parameters in one launch: v = momentum v + (g + decay p),
// p = p - rate v.
//
// The table of parameters travels with the launch, by value, so a step copies nothing to the device. A block
// takes BLOCK values of one parameter; `first` says which block of the grid is a parameter's first.
#include "device.cuh"

static constexpr int SLOTS = 100, BLOCK = 4096;

struct Table {
    float *parameter[SLOTS];
    const float *gradient[SLOTS];
    float *velocity[SLOTS];
    unsigned length[SLOTS];
    unsigned first[SLOTS];
    int slots;
    float momentum, decay, rate;
};
// A launch takes 4 KiB of arguments on every card.
static_assert(sizeof(Table) <= 4096, "the table must fit into a launch");

KERNEL(256, sgd_step)(const Table table) {
    int slot = 0;
    while (slot + 1 < table.slots && table.first[slot + 1] <= blockIdx.x) ++slot;
    unsigned begin = (blockIdx.x - table.first[slot]) * BLOCK, end = min(begin + BLOCK, table.length[slot]);
    float *p = table.parameter[slot], *v = table.velocity[slot];
    const float *g = table.gradient[slot];
    for (unsigned i = begin + threadIdx.x; i < end; i += blockDim.x) {
        float velocity = fmaf(table.momentum, v[i], fmaf(table.decay, p[i], g[i]));
        v[i] = velocity;
        p[i] = fmaf(-table.rate, velocity, p[i]);
    }
}

HOST_KERNEL(sgd_step)
