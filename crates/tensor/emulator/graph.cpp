// CUDA graphs: the work of a stream between the begin and the end of a capture becomes a list of nodes, which
// a launch runs in their order. What a driver refuses to record (waiting, copies from memory that is not
// page-locked, memory of cuMemAlloc) ends the capture with an error here too. Memory of a graph is where the
// capture placed it, at every launch.
#include "driver.hpp"
#include <memory>
#include <set>
#include <thread>

namespace emulated {
namespace {
// Memory that the nodes of a graph allocate. Where one ends, a later one of its size begins.
struct Memory {
    std::vector<unsigned char *> blocks;
    size_t bytes = 0;
    std::set<u64> addresses;
    // Of addresses that a launch left allocated.
    std::set<u64> left;
    ~Memory();
};
struct Step {
    Node node;
    std::function<int()> work;
};
struct Graph {
    std::vector<Step> nodes;
    std::shared_ptr<Memory> memory = std::make_shared<Memory>();
};
struct Capture {
    std::thread::id thread;
    bool any_thread;
    bool invalid = false;
    Graph graph;
    std::map<size_t, std::vector<unsigned char *>> ended;
    std::map<u64, size_t> live;
};
struct Executable {
    Graph graph;
};
// The captures under way, by stream.
std::map<void *, Capture> captures;
// The addresses of the memory of graphs that are no more.
std::set<u64> gone;
// The memory of all graphs, with how much of it is allocated and was at most.
std::set<Memory *> memories;
u64 in_use, most_in_use;

Memory::~Memory() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    memories.erase(this);
    gone.insert(addresses.begin(), addresses.end());
    for (u64 address : left) end_allocation(address);
    for (unsigned char *block : blocks) free(block);
}
Capture *of_stream(void *stream) {
    auto found = captures.find(stream);
    return found == captures.end() ? nullptr : &found->second;
}
Capture *of_thread() {
    for (auto &capture : captures)
        if (capture.second.thread == std::this_thread::get_id()) return &capture.second;
    return nullptr;
}
int invalidate(Capture &capture, const char *what, int error) {
    fprintf(stderr, "emulated device: %s while a stream is captured\n", what);
    capture.invalid = true;
    return error;
}
} // namespace

bool recorded(void *stream, Node node, std::function<int()> work, int *result) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_stream(stream);
    if (!capture) return false;
    *result = capture->invalid ? CAPTURE_INVALIDATED : 0;
    if (!capture->invalid) capture->graph.nodes.push_back({node, std::move(work)});
    return true;
}
bool recorded_allocation(void *stream, size_t n, u64 *address, int *result) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_stream(stream);
    if (!capture) return false;
    *result = capture->invalid ? CAPTURE_INVALIDATED : 0;
    if (capture->invalid) return true;
    Memory &memory = *capture->graph.memory;
    size_t size = with_guards(n);
    auto &free_ones = capture->ended[size];
    unsigned char *raw;
    if (free_ones.empty()) {
        memory.blocks.push_back(raw = (unsigned char *)aligned_alloc(256, size));
        memory.bytes += size;
    } else {
        raw = free_ones.back();
        free_ones.pop_back();
    }
    *address = (u64)(raw + 256);
    memory.addresses.insert(*address);
    capture->live[*address] = n;
    // The capture may not own the memory: that would be a circle.
    Memory *owner = &memory;
    u64 expected = *address;
    capture->graph.nodes.push_back({ALLOCATION_NODE, [=] {
        if (is_allocated(expected)) {
            fprintf(stderr, "emulated device: a graph is launched whose memory an earlier launch left allocated\n");
            return INVALID;
        }
        begin_allocation(raw, n);
        owner->left.insert(expected);
        most_in_use = std::max(most_in_use, in_use += n);
        return 0;
    }});
    return true;
}
bool recorded_free(void *stream, u64 address, int *result) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_stream(stream);
    if (!capture) return false;
    *result = capture->invalid ? CAPTURE_INVALIDATED : 0;
    if (capture->invalid) return true;
    auto found = capture->live.find(address);
    if (found == capture->live.end()) {
        *result = invalidate(*capture, "memory is freed that the graph did not allocate", INVALID);
        return true;
    }
    size_t n = found->second;
    capture->live.erase(found);
    capture->ended[with_guards(n)].push_back((unsigned char *)(address - 256));
    Memory *owner = capture->graph.memory.get();
    capture->graph.nodes.push_back({FREE_NODE, [=] {
        end_allocation(address);
        owner->left.erase(address);
        in_use -= n;
        return 0;
    }});
    return true;
}
bool of_graph(u64 address) {
    for (Memory *memory : memories)
        if (memory->addresses.count(address)) return true;
    return !is_allocated(address) && gone.count(address);
}
int not_while_recording(const char *what) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_thread();
    return capture && !capture->any_thread ? invalidate(*capture, what, CAPTURE_UNSUPPORTED) : 0;
}
int not_on_recorded_stream(void *stream, const char *what, int error) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_stream(stream);
    return capture ? invalidate(*capture, what, error) : 0;
}
} // namespace emulated
using namespace emulated;

// A library's work goes to the stream that this thread captures, if it captures one.
extern "C" __attribute__((visibility("default"))) bool emulated_recorded(std::function<void()> *work) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_thread();
    if (!capture) return false;
    if (!capture->invalid) capture->graph.nodes.push_back({KERNEL_NODE, [work = *work] { return work(), 0; }});
    return true;
}
// A library says that it would wait, measure, or launch what it does not hand to `emulated_recorded`.
extern "C" __attribute__((visibility("default"))) int emulated_not_while_recording(const char *what) { return not_while_recording(what); }

API cuStreamBeginCapture_v2(void *stream, int mode) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!has_context()) return NO_CONTEXT;
    // The stream that all others wait for cannot be captured.
    if (!stream) return CAPTURE_UNSUPPORTED;
    if (of_stream(stream)) return ILLEGAL_STATE;
    const int RELAXED = 2;
    Capture &capture = captures[stream];
    capture.thread = std::this_thread::get_id();
    capture.any_thread = mode == RELAXED;
    memories.insert(capture.graph.memory.get());
    return 0;
}
API cuStreamEndCapture(void *stream, void **graph) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    *graph = nullptr;
    Capture *capture = of_stream(stream);
    if (!capture) return ILLEGAL_STATE;
    if (capture->thread != std::this_thread::get_id() && !capture->any_thread) return WRONG_THREAD;
    bool invalid = capture->invalid;
    if (!invalid) *graph = new Graph(std::move(capture->graph));
    captures.erase(stream);
    return invalid ? CAPTURE_INVALIDATED : 0;
}
API cuStreamIsCapturing(void *stream, int *status) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    Capture *capture = of_stream(stream);
    *status = !capture ? 0 : capture->invalid ? 2 : 1;
    return 0;
}
API cuGraphGetNodes(Graph *graph, void **nodes, size_t *count) {
    if (nodes)
        for (size_t i = 0; i < std::min(*count, graph->nodes.size()); ++i) nodes[i] = &graph->nodes[i];
    *count = graph->nodes.size();
    return 0;
}
API cuGraphNodeGetType(Step *node, int *type) { *type = node->node; return 0; }
API cuGraphInstantiateWithFlags(Executable **executable, Graph *graph, unsigned long long flags) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (flags) return INVALID;
    *executable = new Executable{*graph};
    counts.allocations += graph->memory->blocks.size();
    return 0;
}
API cuGraphUpload(Executable *, void *stream) { return not_on_recorded_stream(stream, "a graph is brought to the device", CAPTURE_UNSUPPORTED); }
API cuGraphLaunch(Executable *executable, void *stream) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!has_context()) return NO_CONTEXT;
    if (int error = not_on_recorded_stream(stream, "a graph is launched", CAPTURE_UNSUPPORTED)) return error;
    ++counts.graph_launches;
    for (Step &node : executable->graph.nodes) {
        if (node.node != ALLOCATION_NODE && node.node != FREE_NODE) ++counts.graph_nodes;
        if (int error = node.work()) return error;
    }
    return 0;
}
API cuGraphExecDestroy(Executable *executable) { delete executable; return 0; }
API cuGraphDestroy(Graph *graph) { delete graph; return 0; }
// Memory in use and its peak, then memory that is taken from the device and its peak.
API cuDeviceGetGraphMemAttribute(int, int attribute, u64 *value) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    u64 reserved = 0;
    for (Memory *memory : memories) reserved += memory->bytes;
    *value = attribute == 0 ? in_use : attribute == 1 ? most_in_use : reserved;
    return 0;
}
