// The driver, libcuda.so.1, on the CPU: the calls that cudarc and candle make. Memory is the machine's; it is
// filled with NaN when it is allocated, and guarded on both sides. Kernels are compiled-in functions that are
// found by name (kernels.cpp runs them). Every launch is checked and, if INVASPREAD_EMULATOR_LOG names a
// file, logged there. Streams and events order nothing: every call completes at once, unless its stream is
// captured (graph.cpp).
#include "driver.hpp"

namespace emulated {
// Allocations by address: their bytes, and the number of the device that they are on.
struct Allocation {
    size_t bytes;
    int device;
};
static std::map<uint64_t, Allocation> allocations;
static size_t in_use, most_in_use;
std::recursive_mutex lock;
Counts counts;
// Page-locked memory of the host: its bytes, by address.
static std::map<const void *, size_t> page_locked;
// What tests may change: the number of multiprocessors that the device reports. Few, since emulated blocks take time.
static unsigned multiprocessors = 4;

static void check_guards(uint64_t address, size_t bytes) {
    for (size_t i = 0; i < GUARD; ++i)
        if (((unsigned char *)address)[-1 - (long)i] != 0xa5 || ((unsigned char *)address)[bytes + i] != 0xa5)
            die("memory around an allocation of " + std::to_string(bytes) + " bytes was overwritten; last kernel " + std::string(last_kernel()));
}
// Of another device's memory a copy has nothing to say.
static bool inside(uint64_t address, size_t bytes, int device) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    --after;
    return address + bytes <= after->first + after->second.bytes && after->second.device == device;
}
static FILE *log_file() {
    static FILE *file = getenv("INVASPREAD_EMULATOR_LOG") ? fopen(getenv("INVASPREAD_EMULATOR_LOG"), "a") : nullptr;
    return file;
}
} // namespace emulated
using namespace emulated;

// The libraries say here that they launch kernels of their own now.
extern "C" __attribute__((visibility("default"))) void emulated_library_call() {
    not_while_recording("a library launches what it does not let be recorded");
    ++counts.library_calls;
}
extern "C" __attribute__((visibility("default"))) void emulated_counts(Counts *to) { *to = counts; }
extern "C" __attribute__((visibility("default"))) void emulated_multiprocessors(unsigned count) { multiprocessors = count; }

API cuInit(unsigned) { return 0; }
API cuDriverGetVersion(int *v) { *v = 13000; return 0; }
// The number of devices: INVASPREAD_EMULATOR_DEVICES, or 1. All are alike.
static int devices() {
    const char *asked = getenv("INVASPREAD_EMULATOR_DEVICES");
    return asked ? atoi(asked) : 1;
}
API cuDeviceGetCount(int *n) { *n = devices(); return 0; }
API cuDeviceGet(int *d, int i) { *d = i; return 0 <= i && i < devices() ? 0 : 101; }
API cuDeviceGetName(char *s, int n, int) { snprintf(s, n, "Emulated device (host)"); return 0; }
API cuDeviceTotalMem_v2(size_t *n, int) { *n = size_t(8) << 30; return 0; }
API cuDeviceGetAttribute(int *v, int attribute, int) {
    switch (attribute) {
    case 1: *v = 1024; break;   // threads of a block
    case 10: *v = 32; break;    // lanes of a warp
    case 16: *v = multiprocessors; break;
    case 97: *v = 227 << 10; break; // shared memory of a block that asks for it
    case 75: *v = 9; break;     // compute capability, major
    case 76: *v = 0; break;     // and minor
    case 115: *v = 1; break;    // memory pools
    default: *v = 1;
    }
    return 0;
}
// The context of device i is the address 0x1000 + i.
API cuDevicePrimaryCtxRetain(void **c, int device) { *c = (void *)(u64)(0x1000 + device); return 0; }
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return 0; }
API cuDevicePrimaryCtxGetState(int, unsigned *f, int *a) { *f = 0, *a = 1; return 0; }
static thread_local void *current_context;
API cuCtxSetCurrent(void *c) { current_context = c; return 0; }
API cuCtxGetCurrent(void **c) { *c = current_context; return 0; }
API cuCtxSynchronize() { return not_while_recording("the context is waited for"); }
static int current_device() { return (int)((u64)current_context - 0x1000); }
API cuCtxGetDevice(int *d) { *d = current_device(); return current_context ? 0 : 201; }
API cuMemGetInfo_v2(size_t *f, size_t *t) { *t = size_t(8) << 30, *f = *t - in_use; return 0; }
API cuStreamCreate(void **s, unsigned) { static u64 next = 0x2000; *s = (void *)next++; return 0; }
API cuStreamCreateWithPriority(void **s, unsigned f, int) { return cuStreamCreate(s, f); }
API cuStreamDestroy_v2(void *) { return 0; }
static void trim(size_t most);
static u64 release_threshold = 0;
// By default the pool gives its memory back whenever somebody waits.
API cuStreamSynchronize(void *stream) {
    if (int error = not_on_recorded_stream(stream, "it is waited for", CAPTURE_UNSUPPORTED)) return error;
    std::lock_guard<std::recursive_mutex> guard(lock);
    trim(release_threshold);
    return 0;
}
API cuStreamWaitEvent(void *stream, void *, unsigned) { return not_on_recorded_stream(stream, "it waits for an event", CAPTURE_ISOLATION); }
API cuStreamAttachMemAsync(void *, u64, size_t, unsigned) { return 0; }
API cuEventCreate(void **e, unsigned) { static u64 next = 0x3000; *e = (void *)next++; return 0; }
API cuEventQuery(void *) { return not_while_recording("an event is asked for"); }
API cuEventSynchronize(void *) { return not_while_recording("an event is waited for"); }
API cuEventDestroy_v2(void *) { return 0; }
API cuDeviceGetDefaultMemPool(void **p, int) { *p = (void *)0x4000; return 0; }
API cuMemPoolSetAttribute(void *, int a, void *v) {
    if (a == 4) release_threshold = *(u64 *)v;
    // The mark of the most memory in use can only be reset.
    if (a == 8 && *(u64 *)v != 0) return INVALID;
    if (a == 8) most_in_use = in_use;
    return 0;
}
API cuMemPoolTrimTo(void *, size_t most) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    trim(most);
    return 0;
}
API cuMemPoolGetAttribute(void *, int a, void *v) { *(u64 *)v = a == 8 ? most_in_use : in_use; return 0; }
API cuGetErrorString(int e, const char **s) {
    *s = e == NOT_FOUND ? "named symbol not found" : e == INVALID ? "invalid argument" : "emulated error";
    return 0;
}
API cuGetErrorName(int, const char **s) { *s = "CUDA_ERROR_EMULATED"; return 0; }

// The pool: freed memory by its size, kept for the next allocation as long as it is less than the threshold.
static std::map<size_t, std::vector<unsigned char *>> freed;
static size_t freed_bytes;
static void trim(size_t most) {
    if (freed_bytes <= most) return;
    for (auto &of_size : freed)
        for (unsigned char *raw : of_size.second) free(raw);
    freed.clear();
    freed_bytes = 0;
}
size_t emulated::with_guards(size_t n) { return (n + 2 * 256 + 511) / 512 * 512; }

static int allocate(u64 *p, size_t n) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!current_context) return 201;
    if (n == 0) return INVALID;
    ++counts.allocator_calls;
    size_t size = with_guards(n);
    auto kept = freed.find(size);
    unsigned char *raw;
    if (kept != freed.end() && !kept->second.empty()) {
        raw = kept->second.back();
        kept->second.pop_back();
        freed_bytes -= size;
    } else {
        raw = (unsigned char *)aligned_alloc(256, size);
        ++counts.allocations;
    }
    *p = begin_allocation(raw, n);
    in_use += n;
    most_in_use = std::max(most_in_use, in_use);
    return 0;
}
namespace emulated {
bool has_context() { return current_context; }
bool is_allocated(u64 address) { return allocations.count(address); }
u64 begin_allocation(unsigned char *raw, size_t n) {
    memset(raw, 0xa5, 256);
    // Of very large allocations only the beginning is filled: cuDNN gets a gigabyte of scratch memory that is
    // never touched here.
    memset(raw + 256, 0xff, std::min(n, size_t(16) << 20));
    memset(raw + 256 + n, 0xa5, GUARD);
    allocations[(u64)(raw + 256)] = {n, current_device()};
    return (u64)(raw + 256);
}
void end_allocation(u64 address) {
    auto found = allocations.find(address);
    if (found == allocations.end()) die("memory freed that was not allocated, or twice");
    check_guards(address, found->second.bytes);
    allocations.erase(found);
}
} // namespace emulated
static int release(u64 p) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    // A graph that left memory allocated keeps it for its next launch.
    if (of_graph(p)) return INVALID;
    auto found = allocations.find(p);
    size_t size = found == allocations.end() ? 0 : with_guards(found->second.bytes);
    in_use -= found == allocations.end() ? 0 : found->second.bytes;
    end_allocation(p);
    freed[size].push_back((unsigned char *)(p - 256));
    freed_bytes += size;
    // The machine's memory is not the device's.
    trim(size_t(3) << 29);
    return 0;
}
API cuMemAllocAsync(u64 *p, size_t n, void *stream) {
    int result;
    return recorded_allocation(stream, n, p, &result) ? result : allocate(p, n);
}
API cuMemAlloc_v2(u64 *p, size_t n) {
    if (int error = not_while_recording("memory is allocated outside of the stream's order")) return error;
    return allocate(p, n);
}
API cuMemFreeAsync(u64 p, void *stream) {
    int result;
    return recorded_free(stream, p, &result) ? result : release(p);
}
API cuMemFree_v2(u64 p) {
    if (int error = not_while_recording("memory is freed outside of the stream's order")) return error;
    return release(p);
}
API cuMemHostAlloc(void **p, size_t n, unsigned) {
    if (int error = not_while_recording("memory is page-locked")) return error;
    std::lock_guard<std::recursive_mutex> guard(lock);
    page_locked[*p = aligned_alloc(64, (n + 63) / 64 * 64)] = n;
    return 0;
}
API cuMemFreeHost(void *p) {
    if (int error = not_while_recording("page-locked memory is freed")) return error;
    std::lock_guard<std::recursive_mutex> guard(lock);
    page_locked.erase(p);
    free(p);
    return 0;
}
static bool is_page_locked(const void *p, size_t n) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto after = page_locked.upper_bound(p);
    if (after == page_locked.begin()) return false;
    --after;
    return (const char *)p + n <= (const char *)after->first + after->second;
}
static int copy(void *to, const void *from, size_t n, bool to_device, bool from_device) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!current_context) return 201;
    int device = current_device();
    if ((to_device && !inside((u64)to, n, device)) || (from_device && !inside((u64)from, n, device))) {
        fprintf(stderr, "emulated device: a copy outside of any allocation\n");
        return INVALID;
    }
    memmove(to, from, n);
    if (FILE *f = log_file()) fprintf(f, "copy %s%s %zu\n", from_device ? "d" : "h", to_device ? "d" : "h", n), fflush(f);
    return 0;
}
// A copy that is not a graph's.
static int counted_copy(void *to, const void *from, size_t n, bool to_device, bool from_device) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    int error = copy(to, from, n, to_device, from_device);
    if (error) return error;
    if (to_device && from_device) ++counts.copies_on_device;
    if (to_device && !from_device) ++counts.copies_to_device, counts.bytes_to_device += n;
    if (from_device && !to_device) ++counts.copies_to_host, counts.bytes_to_host += n;
    return 0;
}
// A copy in the order of the stream, and one that the caller waits for.
static int copy_on(void *stream, void *to, const void *from, size_t n, bool to_device, bool from_device) {
    const void *host = !to_device ? to : !from_device ? from : nullptr;
    if (host && !is_page_locked(host, n))
        if (int error = not_on_recorded_stream(stream, "memory that is not page-locked is copied", CAPTURE_UNSUPPORTED)) return error;
    int result;
    auto work = [=] { return copy(to, from, n, to_device, from_device); };
    return recorded(stream, COPY_NODE, work, &result) ? result : counted_copy(to, from, n, to_device, from_device);
}
static int copy_now(void *to, const void *from, size_t n, bool to_device, bool from_device) {
    if (int error = not_while_recording("a copy is waited for")) return error;
    return counted_copy(to, from, n, to_device, from_device);
}
API cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t n, void *stream) { return copy_on(stream, (void *)to, from, n, true, false); }
API cuMemcpyHtoD_v2(u64 to, const void *from, size_t n) { return copy_now((void *)to, from, n, true, false); }
API cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t n, void *stream) { return copy_on(stream, to, (void *)from, n, false, true); }
API cuMemcpyDtoH_v2(void *to, u64 from, size_t n) { return copy_now(to, (void *)from, n, false, true); }
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, void *stream) { return copy_on(stream, (void *)to, (void *)from, n, true, true); }
API cuMemcpyDtoD_v2(u64 to, u64 from, size_t n) { return copy_now((void *)to, (void *)from, n, true, true); }
static int set(u64 to, unsigned char v, size_t n) {
    if (!inside(to, n, current_device())) return INVALID;
    memset((void *)to, v, n);
    return 0;
}
API cuMemsetD8Async(u64 to, unsigned char v, size_t n, void *stream) {
    int result;
    auto work = [=] { return set(to, v, n); };
    return recorded(stream, SET_NODE, work, &result) ? result : work();
}
API cuMemsetD8_v2(u64 to, unsigned char v, size_t n) {
    if (int error = not_while_recording("memory is set outside of the stream's order")) return error;
    return set(to, v, n);
}

API cuModuleLoadData(void **m, const void *) { *m = (void *)0x5000; return not_while_recording("kernels are loaded"); }
API cuModuleLoad(void **m, const char *) { return cuModuleLoadData(m, nullptr); }
API cuModuleUnload(void *) { return 0; }
API cuModuleGetFunction(void **f, void *, const char *name) {
    auto found = kernels().find(name);
    if (found == kernels().end()) {
        fprintf(stderr, "emulated device: no kernel %s\n", name);
        return NOT_FOUND;
    }
    *f = &found->second;
    return 0;
}
API cuFuncSetAttribute(void *f, int attribute, int value) {
    const int MAX_DYNAMIC_SHARED = 8;
    if (attribute != MAX_DYNAMIC_SHARED) return 0;
    if (value > 227 << 10) return INVALID;
    ((Kernel *)f)->shared = value;
    return 0;
}
API cuFuncGetAttribute(int *v, int, void *f) { *v = ((const Kernel *)f)->threads; return 0; }
static int run(const Kernel *kernel, dim3 grid, dim3 block, unsigned shared, void **arguments, bool together) {
    run_kernel(*kernel, grid, block, shared, arguments, together);
    for (auto &a : allocations) check_guards(a.first, a.second.bytes);
    if (FILE *log = log_file())
        fprintf(log, "launch %s grid %u %u %u block %u %u %u shared %u\n", kernel->name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z,
                shared), fflush(log);
    return 0;
}
static int launch(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                  void **arguments, bool together) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!current_context) return NO_CONTEXT;
    unsigned threads = bx * by * bz;
    const Kernel *kernel = (const Kernel *)f;
    if (threads == 0 || threads > kernel->threads || gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || shared > kernel->shared) {
        fprintf(stderr, "emulated device: a launch of %s that no device takes: grid %u %u %u, block %u %u %u of at most %u, shared %u of at most %u\n",
                kernel->name.c_str(), gx, gy, gz, bx, by, bz, kernel->threads, shared, kernel->shared);
        return INVALID;
    }
    // Of the kernels that wait for one another, two blocks fit onto a multiprocessor.
    if (together && (size_t)gx * gy * gz > 2 * multiprocessors) {
        fprintf(stderr, "emulated device: %u %u %u blocks of %s cannot run at once on %u multiprocessors\n", gx, gy, gz, kernel->name.c_str(),
                multiprocessors);
        return TOO_MANY_BLOCKS;
    }
    dim3 grid{gx, gy, gz}, block{bx, by, bz};
    // A graph keeps the arguments as they are now.
    std::vector<std::vector<char>> kept;
    for (size_t i = 0; i < kernel->arguments.size(); ++i)
        kept.emplace_back((char *)arguments[i], (char *)arguments[i] + kernel->arguments[i]);
    int result;
    auto later = [=]() mutable {
        std::vector<void *> places;
        for (auto &argument : kept) places.push_back(argument.data());
        return run(kernel, grid, block, shared, places.data(), together);
    };
    if (recorded(stream, KERNEL_NODE, later, &result)) return result;
    ++counts.launches;
    return run(kernel, grid, block, shared, arguments, together);
}
API cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                   void **arguments, void **) {
    return launch(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, false);
}
API cuLaunchCooperativeKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                              void **arguments) {
    return launch(f, gx, gy, gz, bx, by, bz, shared, stream, arguments, true);
}
