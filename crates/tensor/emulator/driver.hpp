// What the parts of the emulated driver share: memory and calls (driver.cpp), kernels (kernels.cpp), graphs
// (graph.cpp).
#pragma once
#include "cuda_on_host.hpp"
#include <mutex>

using u64 = uint64_t;
#define API extern "C" __attribute__((visibility("default"))) int

namespace emulated {
// The driver's numbers of errors.
static const int INVALID = 1, NO_CONTEXT = 201, ILLEGAL_STATE = 401, NOT_FOUND = 500, TOO_MANY_BLOCKS = 720, CAPTURE_UNSUPPORTED = 900,
                 CAPTURE_INVALIDATED = 901, CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907, WRONG_THREAD = 908;

// Bytes around memory that nothing may write.
static const size_t GUARD = 64;

// What the device did so far, for tests: the order of `Counts` in src/cuda/testing.rs.
struct Counts {
    u64 launches, library_calls, allocator_calls, allocations, copies_on_device, copies_to_host, bytes_to_host, copies_to_device, bytes_to_device,
        graph_launches, graph_nodes;
};
extern Counts counts;
extern std::recursive_mutex lock;

[[noreturn]] void die(const std::string &what);
struct Kernel {
    std::string name;
    // The bytes of each argument.
    std::vector<size_t> arguments;
    // The most threads of a block that it was compiled for.
    unsigned threads;
    std::function<void(void **)> run;
    // The most dynamic shared memory that a launch may request; more than this must be asked for.
    unsigned shared = 48 << 10;
};
std::map<std::string, Kernel> &kernels();
void run_kernel(const Kernel &kernel, dim3 grid, dim3 block, unsigned shared, void **arguments, bool together);
const char *last_kernel();
bool has_context();
// The bytes that an allocation of n takes with what guards it.
size_t with_guards(size_t n);
// Makes `raw` an allocation of n bytes of the current device, filled with NaN; returns its address.
u64 begin_allocation(unsigned char *raw, size_t n);
// Ends one; nothing may have been written around it.
void end_allocation(u64 address);
bool is_allocated(u64 address);

// The numbers of nodes.
enum Node { KERNEL_NODE = 0, COPY_NODE = 1, SET_NODE = 2, ALLOCATION_NODE = 10, FREE_NODE = 11 };
// If the work of a stream is being recorded, takes it up as a node and sets `result`. The caller runs it
// otherwise.
bool recorded(void *stream, Node node, std::function<int()> work, int *result);
// The same for an allocation (the address is set) and for the end of one.
bool recorded_allocation(void *stream, size_t n, u64 *address, int *result);
bool recorded_free(void *stream, u64 address, int *result);
// Whether an address is a graph's, or was and is nobody's now.
bool of_graph(u64 address);
// Ends the recording of this thread, if there is one, since it called what may not be recorded; returns the
// error, or 0.
int not_while_recording(const char *what);
// The same where the stream's work is recorded, by whatever thread.
int not_on_recorded_stream(void *stream, const char *what, int error);
} // namespace emulated
