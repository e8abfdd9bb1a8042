// Runs the blocks of a launch: threads are fibers, which switch at barriers and at exchanges of a warp.
// Shared memory is poisoned and guarded. Blocks run one after the other or, in a cooperative launch, in
// turns.
#include "driver.hpp"
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulated {
uint3 thread_index, block_index;
dim3 block_size, grid_size;
unsigned char *dynamic_shared;

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

void add_kernel(const char *name, std::vector<size_t> arguments, unsigned threads, std::function<void(void **)> run) {
    kernels()[name] = {name, arguments, threads, run};
}

void die(const std::string &what) {
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
                // Lanes of a mask that are missing: still running (READY is impossible here), at a barrier,
                // or ended.
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

void run_kernel(const Kernel &kernel, dim3 grid, dim3 block, unsigned shared, void **arguments, bool together) {
    running = &kernel;
    running_arguments = arguments;
    cooperative = together;
    block_size = block;
    grid_size = grid;
    run_blocks(block.x * block.y * block.z, shared);
}
const char *last_kernel() { return running ? running->name.c_str() : "none"; }
} // namespace emulated
