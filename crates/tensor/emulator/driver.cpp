// The driver, libcuda.so.1, on the CPU: the calls that cudarc and candle make. Memory is the machine's; it is
// filled with NaN when it is allocated, and guarded on both sides. Kernels are compiled-in functions that are
// found by name. Every launch is checked and, if INVASPREAD_EMULATOR_LOG names a file, logged there. Streams
// and events order nothing: every call completes at once.
#include "cuda_on_host.hpp"
#include <mutex>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

using u64 = uint64_t;

namespace emulated {
uint3 thread_index, block_index;
dim3 block_size, grid_size;
unsigned char *dynamic_shared;

struct Kernel {
    std::string name;
    int arguments;
    // The most threads of a block that it was compiled for.
    unsigned threads;
    std::function<void(void **)> run;
    // The most dynamic shared memory that a launch may request; more than this must be asked for.
    unsigned shared = 48 << 10;
};

static std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

void add_kernel(const char *name, int arguments, unsigned threads, std::function<void(void **)> run) {
    kernels()[name] = {name, arguments, threads, run};
}

[[noreturn]] static void die(const std::string &what) {
    fprintf(stderr, "emulated device: %s\n", what.c_str());
    abort();
}

enum State { READY, AT_BARRIER, IN_WARP, WAITING, ENDED };

#if defined(__x86_64__)
// Leaves this stack for another: saves the registers that a call keeps, and the stack pointer. (The C
// library's own switch asks the kernel for the signal mask each time, at ten times the cost.)
extern "C" void emulated_switch(void **from, void *to);
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, .-emulated_switch
)");

struct Context {
    void *stack_pointer;
    void prepare(char *stack, size_t size, void (*entry)()) {
        // The state in which `emulated_switch` leaves a stack: six registers, then the return address. A
        // function begins eight bytes off the alignment.
        void **top = reinterpret_cast<void **>((reinterpret_cast<uint64_t>(stack) + size) / 16 * 16);
        top[-2] = reinterpret_cast<void *>(entry);
        for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
        stack_pointer = top - 8;
    }
    void go(Context &to) { emulated_switch(&stack_pointer, to.stack_pointer); }
};
#else
struct Context {
    ucontext_t context;
    void prepare(char *stack, size_t size, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = size;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
    void go(Context &to) { swapcontext(&context, &to.context); }
};
#endif

struct Fiber {
    Context context;
    char *stack = nullptr;
    State state = ENDED;
    uint3 index;
    // What a thread waits for that another block writes.
    const unsigned *flag;
    // The value that the thread gives to its warp's exchange, the lanes that take part, and what it receives.
    uint64_t given;
    unsigned mask;
    uint64_t all[32];
    unsigned present;
};

// The size of a thread's stack. Kernels keep little on it, but it also holds what a GPU keeps in registers.
static const size_t STACK = 128 << 10;
// Bytes around memory that nothing may write.
static const size_t GUARD = 64;
static Context scheduler;
static Fiber *current;
static const Kernel *running;
static void **running_arguments;
static bool cooperative;
static unsigned order_seed = 1;

static std::string where() {
    char text[256];
    snprintf(text, sizeof text, "%s, block (%u, %u, %u), thread (%u, %u, %u)", running ? running->name.c_str() : "?", block_index.x, block_index.y,
             block_index.z, thread_index.x, thread_index.y, thread_index.z);
    return text;
}
static void leave(State state) {
    current->state = state;
    Fiber *mine = current;
    mine->context.go(scheduler);
}
void barrier() { leave(AT_BARRIER); }
void wait_for(const unsigned *flag) {
    if (!cooperative) die("a thread waits for another block, in a launch whose blocks need not run at once: " + where());
    current->flag = flag;
    while (*flag == 0) leave(WAITING);
}
void exchange(unsigned mask, uint64_t mine, uint64_t all[32], unsigned *present) {
    Fiber *me = current;
    me->given = mine;
    me->mask = mask;
    leave(IN_WARP);
    std::memcpy(all, me->all, sizeof me->all);
    *present = me->present;
}
static void body() {
    running->run(running_arguments);
    leave(ENDED);
    die("an ended thread went on");
}

extern "C" unsigned char __start_emulated_shared[] __attribute__((weak));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak));

// A block of a launch: its threads, and its shared memory while another block runs.
struct Block {
    uint3 index;
    std::vector<Fiber> fibers;
    std::vector<unsigned> order;
    std::vector<unsigned char> statics, dynamics;
    unsigned char *dynamic;
    unsigned shared;
    bool ended = false;

    // Stacks are lent by the page, which costs nothing until a page is used, and taken back.
    static std::vector<char *> &stacks() {
        // Never destroyed: blocks give stacks back to the very end.
        static auto *free_ones = new std::vector<char *>;
        return *free_ones;
    }
    static char *stack() {
        auto &free_ones = stacks();
        if (free_ones.empty()) {
            const size_t AT_ONCE = 256;
            char *memory = (char *)mmap(nullptr, STACK * AT_ONCE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) die("no memory for the stacks of threads");
            for (size_t i = 0; i < AT_ONCE; ++i) free_ones.push_back(memory + i * STACK);
        }
        char *last = free_ones.back();
        free_ones.pop_back();
        return last;
    }
    ~Block() {
        for (Fiber &f : fibers)
            if (f.stack) stacks().push_back(f.stack);
    }

    void begin(uint3 at, unsigned threads, unsigned shared_bytes) {
        index = at;
        shared = shared_bytes;
        ended = false;
        if (fibers.size() < threads) fibers.resize(threads);
        order.resize(threads);
        for (unsigned i = 0; i < threads; ++i) {
            order[i] = i;
            Fiber &f = fibers[i];
            if (!f.stack) f.stack = stack();
            f.context.prepare(f.stack, STACK, body);
            f.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
            f.state = READY;
        }
        order_seed = order_seed * 1664525u + 1013904223u;
        if (order_seed >> 16 & 1) std::reverse(order.begin(), order.end());
        if (order_seed >> 17 & 1)
            for (unsigned i = threads; i > 1; --i) {
                order_seed = order_seed * 1664525u + 1013904223u;
                std::swap(order[i - 1], order[(order_seed >> 8) % i]);
            }
        // Shared memory holds NaN at first, with guards around what the launch requested.
        if (cooperative) statics.assign(__start_emulated_shared ? __stop_emulated_shared - __start_emulated_shared : 0, 0xff);
        else if (__start_emulated_shared) memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
        dynamics.assign(shared + 2 * GUARD + 16, 0xa5);
        dynamic = (unsigned char *)(((uint64_t)dynamics.data() + GUARD + 15) / 16 * 16);
        memset(dynamic, 0xff, shared);
    }

    // Runs until all threads have ended or wait for another block; returns whether any thread ran.
    bool run() {
        block_index = index;
        dynamic_shared = dynamic;
        // Only where blocks take turns does each need its own.
        if (cooperative && !statics.empty()) memcpy(__start_emulated_shared, statics.data(), statics.size());
        bool ran = go();
        if (cooperative && !statics.empty()) memcpy(statics.data(), __start_emulated_shared, statics.size());
        for (size_t i = 0; i < 32; ++i)
            if (dynamic[shared + i] != 0xa5) die("dynamic shared memory overrun: " + running->name);
        return ran;
    }

    bool go() {
        unsigned threads = order.size();
        bool ran_at_all = false;
        for (;;) {
            bool ran = false;
            for (unsigned i : order) {
                Fiber &f = fibers[i];
                if (f.state == WAITING && *f.flag) f.state = READY;
                if (f.state != READY) continue;
                ran = ran_at_all = true;
                current = &f;
                thread_index = f.index;
                scheduler.go(f.context);
            }
            // Wake the warps whose lanes have all reached their exchange.
            bool woke = false;
            for (unsigned first = 0; first < threads; first += 32) {
                unsigned last = std::min(first + 32, threads), waiting = 0, alive = 0, mask = 0;
                for (unsigned i = first; i < last; ++i) {
                    if (fibers[i].state != ENDED) alive |= 1u << (i - first);
                    if (fibers[i].state == IN_WARP) waiting |= 1u << (i - first), mask |= fibers[i].mask;
                }
                if (!waiting) continue;
                // Lanes of a mask that are missing: still running (READY is impossible here), at a barrier, or
                // ended.
                unsigned wanted = mask & (last - first == 32 ? ~0u : (1u << (last - first)) - 1);
                unsigned missing = wanted & alive & ~waiting;
                if (missing) {
                    thread_index = fibers[first + __builtin_ctz(missing)].index;
                    die("a lane is missing from a warp's exchange: " + where());
                }
                for (unsigned i = first; i < last; ++i) {
                    if (fibers[i].state != IN_WARP) continue;
                    fibers[i].present = waiting;
                    for (unsigned j = first; j < last; ++j) fibers[i].all[j - first] = fibers[j].given;
                }
                for (unsigned i = first; i < last; ++i)
                    if (fibers[i].state == IN_WARP) fibers[i].state = READY;
                woke = true;
            }
            if (woke) continue;
            unsigned at_barrier = 0, alive = 0, waiting = 0;
            for (unsigned i = 0; i < threads; ++i) {
                at_barrier += fibers[i].state == AT_BARRIER, alive += fibers[i].state != ENDED;
                waiting += fibers[i].state == WAITING;
            }
            if (!alive) {
                ended = true;
                return ran_at_all;
            }
            if (at_barrier == alive) {
                for (unsigned i = 0; i < threads; ++i)
                    if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
                continue;
            }
            if (ran) continue;
            if (waiting) return ran_at_all;
            die("threads wait for one another: " + where());
        }
    }
};

// Runs all blocks of a launch: one after the other or, in a cooperative launch, in turns.
static void run_blocks(unsigned threads, unsigned shared) {
    static std::vector<Block> &kept = *new std::vector<Block>;
    size_t count = cooperative ? (size_t)grid_size.x * grid_size.y * grid_size.z : 1;
    if (kept.size() < count) {
        std::vector<Block> more(count);
        std::swap(kept, more);
    }
    size_t next = 0;
    for (unsigned z = 0; z < grid_size.z; ++z)
        for (unsigned y = 0; y < grid_size.y; ++y)
            for (unsigned x = 0; x < grid_size.x; ++x) {
                kept[next].begin({x, y, z}, threads, shared);
                if (cooperative) {
                    ++next;
                    continue;
                }
                kept[0].run();
            }
    if (!cooperative) return;
    for (size_t left = count; left > 0;) {
        bool ran = false;
        for (size_t i = 0; i < count; ++i) {
            // Another order in each launch, as blocks are scheduled by chance.
            Block &block = kept[(order_seed >> 19 & 1) ? count - 1 - i : i];
            if (block.ended) continue;
            ran |= block.run();
            left -= block.ended;
        }
        if (!ran) die("blocks wait for one another: " + running->name);
    }
}

// Allocations by address: their bytes, and the number of the device that they are on.
struct Allocation {
    size_t bytes;
    int device;
};
static std::map<uint64_t, Allocation> allocations;
static size_t in_use, most_in_use;
static std::recursive_mutex lock;

// What the device did so far, for tests: the order of `Counts` in src/cuda/testing.rs.
struct Counts {
    u64 launches, library_calls, allocator_calls, allocations, copies_on_device, copies_to_host, bytes_to_host, copies_to_device, bytes_to_device;
};
static Counts counts;
// What tests may change: the number of multiprocessors that the device reports. Few, since emulated blocks take time.
static unsigned multiprocessors = 4;

static void check_guards(uint64_t address, size_t bytes) {
    for (size_t i = 0; i < GUARD; ++i)
        if (((unsigned char *)address)[-1 - (long)i] != 0xa5 || ((unsigned char *)address)[bytes + i] != 0xa5)
            die("memory around an allocation of " + std::to_string(bytes) + " bytes was overwritten; last kernel " + (running ? running->name : "none"));
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
#define API extern "C" __attribute__((visibility("default"))) int
static const int INVALID = 1, NOT_FOUND = 500;

// The libraries say here that they would launch kernels of their own.
extern "C" __attribute__((visibility("default"))) void emulated_library_call() { ++counts.library_calls; }
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
API cuCtxSynchronize() { return 0; }
static int current_device() { return (int)((u64)current_context - 0x1000); }
API cuCtxGetDevice(int *d) { *d = current_device(); return current_context ? 0 : 201; }
API cuMemGetInfo_v2(size_t *f, size_t *t) { *t = size_t(8) << 30, *f = *t - in_use; return 0; }
API cuStreamCreate(void **s, unsigned) { static u64 next = 0x2000; *s = (void *)next++; return 0; }
API cuStreamCreateWithPriority(void **s, unsigned f, int) { return cuStreamCreate(s, f); }
API cuStreamDestroy_v2(void *) { return 0; }
static void trim(size_t most);
static u64 release_threshold = 0;
// By default the pool gives its memory back whenever somebody waits.
API cuStreamSynchronize(void *) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    trim(release_threshold);
    return 0;
}
API cuStreamWaitEvent(void *, void *, unsigned) { return 0; }
API cuStreamIsCapturing(void *, int *s) { *s = 0; return 0; }
API cuStreamAttachMemAsync(void *, u64, size_t, unsigned) { return 0; }
API cuEventCreate(void **e, unsigned) { static u64 next = 0x3000; *e = (void *)next++; return 0; }
API cuEventQuery(void *) { return 0; }
API cuEventSynchronize(void *) { return 0; }
API cuEventDestroy_v2(void *) { return 0; }
API cuDeviceGetDefaultMemPool(void **p, int) { *p = (void *)0x4000; return 0; }
API cuMemPoolSetAttribute(void *, int a, void *v) {
    if (a == 4) release_threshold = *(u64 *)v;
    // The mark of the most memory in use can only be reset.
    if (a == 8 && *(u64 *)v != 0) return INVALID;
    if (a == 8) most_in_use = in_use;
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
static size_t with_guards(size_t n) { return (n + 2 * 256 + 511) / 512 * 512; }

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
    memset(raw, 0xa5, 256);
    // Of very large allocations only the beginning is filled: cuDNN gets a gigabyte of scratch memory that is
    // never touched here.
    memset(raw + 256, 0xff, std::min(n, size_t(16) << 20));
    memset(raw + 256 + n, 0xa5, GUARD);
    *p = (u64)(raw + 256);
    allocations[*p] = {n, current_device()};
    in_use += n;
    most_in_use = std::max(most_in_use, in_use);
    return 0;
}
static int release(u64 p) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = allocations.find(p);
    if (found == allocations.end()) die("memory freed that was not allocated, or twice");
    check_guards(p, found->second.bytes);
    in_use -= found->second.bytes;
    size_t size = with_guards(found->second.bytes);
    allocations.erase(found);
    freed[size].push_back((unsigned char *)(p - 256));
    freed_bytes += size;
    // The machine's memory is not the device's.
    trim(size_t(3) << 29);
    return 0;
}
API cuMemAllocAsync(u64 *p, size_t n, void *) { return allocate(p, n); }
API cuMemAlloc_v2(u64 *p, size_t n) { return allocate(p, n); }
API cuMemFreeAsync(u64 p, void *) { return release(p); }
API cuMemFree_v2(u64 p) { return release(p); }
API cuMemHostAlloc(void **p, size_t n, unsigned) { *p = aligned_alloc(64, (n + 63) / 64 * 64); return 0; }
API cuMemFreeHost(void *p) { free(p); return 0; }
static int copy(void *to, const void *from, size_t n, bool to_device, bool from_device) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!current_context) return 201;
    int device = current_device();
    if ((to_device && !inside((u64)to, n, device)) || (from_device && !inside((u64)from, n, device))) {
        fprintf(stderr, "emulated device: a copy outside of any allocation\n");
        return INVALID;
    }
    memmove(to, from, n);
    if (to_device && from_device) ++counts.copies_on_device;
    if (to_device && !from_device) ++counts.copies_to_device, counts.bytes_to_device += n;
    if (from_device && !to_device) ++counts.copies_to_host, counts.bytes_to_host += n;
    if (FILE *f = log_file()) fprintf(f, "copy %s%s %zu\n", from_device ? "d" : "h", to_device ? "d" : "h", n), fflush(f);
    return 0;
}
API cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t n, void *) { return copy((void *)to, from, n, true, false); }
API cuMemcpyHtoD_v2(u64 to, const void *from, size_t n) { return copy((void *)to, from, n, true, false); }
API cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t n, void *) { return copy(to, (void *)from, n, false, true); }
API cuMemcpyDtoH_v2(void *to, u64 from, size_t n) { return copy(to, (void *)from, n, false, true); }
API cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t n, void *) { return copy((void *)to, (void *)from, n, true, true); }
API cuMemcpyDtoD_v2(u64 to, u64 from, size_t n) { return copy((void *)to, (void *)from, n, true, true); }
API cuMemsetD8Async(u64 to, unsigned char v, size_t n, void *) {
    if (!inside(to, n, current_device())) return INVALID;
    memset((void *)to, v, n);
    return 0;
}
API cuMemsetD8_v2(u64 to, unsigned char v, size_t n) { return cuMemsetD8Async(to, v, n, nullptr); }

API cuModuleLoadData(void **m, const void *) { *m = (void *)0x5000; return 0; }
API cuModuleLoad(void **m, const char *) { *m = (void *)0x5000; return 0; }
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
static int launch(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void **arguments,
                  bool together) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!current_context) return 201;
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
        return 720;
    }
    ++counts.launches;
    running = kernel;
    running_arguments = arguments;
    cooperative = together;
    block_size = {bx, by, bz};
    grid_size = {gx, gy, gz};
    run_blocks(threads, shared);
    for (auto &a : allocations) check_guards(a.first, a.second.bytes);
    if (FILE *log = log_file())
        fprintf(log, "launch %s grid %u %u %u block %u %u %u shared %u\n", running->name.c_str(), gx, gy, gz, bx, by, bz, shared), fflush(log);
    return 0;
}
API cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *,
                   void **arguments, void **) {
    return launch(f, gx, gy, gz, bx, by, bz, shared, arguments, false);
}
API cuLaunchCooperativeKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *,
                              void **arguments) {
    return launch(f, gx, gy, gz, bx, by, bz, shared, arguments, true);
}
