// Stand-ins for those of candle's own kernels that this project uses: filling, copying, casting, adding,
// multiplying, summing. `info` holds the sizes of the axes and then the strides of each input; null means
// that all inputs are contiguous.
#include "device.cuh"

static size_t place(size_t i, size_t axes, const size_t *sizes, const size_t *strides) {
    if (!sizes) return i;
    size_t at = 0;
    for (size_t axis = axes; axis-- > 0; i /= sizes[axis]) at += i % sizes[axis] * strides[axis];
    return at;
}

template <typename F> static void each(size_t count, F f) {
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)blockDim.x * gridDim.x) f(i);
}

#define MOVES(T, S)                                                                                                                 \
    KERNEL(1024, const_set_##S)(size_t n, size_t axes, const size_t *info, T value, T *out) {                          \
        each(n, [&](size_t i) { out[place(i, axes, info, info + axes)] = value; });                                                 \
    }                                                                                                                               \
    KERNEL(1024, ucopy_##S)(size_t n, size_t axes, const size_t *info, const T *in, T *out) {                          \
        each(n, [&](size_t i) { out[i] = in[place(i, axes, info, info + axes)]; });                                                 \
    }                                                                                                                               \
    KERNEL(1024, copy2d_##S)(const T *in, T *out, unsigned rows, unsigned columns, unsigned from, unsigned to) {       \
        each((size_t)rows * columns, [&](size_t i) { out[i / columns * to + i % columns] = in[i / columns * from + i % columns]; }); \
    }                                                                                                                               \
    HOST_KERNEL(const_set_##S) HOST_KERNEL(ucopy_##S) HOST_KERNEL(copy2d_##S)
MOVES(float, f32)
MOVES(double, f64)
MOVES(bf16, bf16)
MOVES(unsigned, u32)
MOVES(unsigned char, u8)

static double wide(float x) { return x; }
static double wide(double x) { return x; }
static double wide(bf16 x) { return __bfloat162float(x); }
template <typename T> static T narrow(double x) { return (T)x; }
template <> bf16 narrow<bf16>(double x) { return __float2bfloat16((float)x); }

#define BINARY(T, S, NAME, OP)                                                                                                      \
    KERNEL(1024, NAME##_##S)(size_t n, size_t axes, const size_t *info, const T *a, const T *b, T *out) {              \
        each(n, [&](size_t i) {                                                                                                     \
            double x = wide(a[place(i, axes, info, info + axes)]), y = wide(b[place(i, axes, info, info + 2 * axes)]);              \
            out[i] = narrow<T>(x OP y);                                                                                             \
        });                                                                                                                         \
    }                                                                                                                               \
    HOST_KERNEL(NAME##_##S)
#define ARITHMETIC(T, S)                                                                                                            \
    BINARY(T, S, badd, +)                                                                                                           \
    BINARY(T, S, bsub, -)                                                                                                           \
    BINARY(T, S, bmul, *)                                                                                                           \
    BINARY(T, S, bdiv, /)                                                                                                           \
    KERNEL(1024, affine_##S)(size_t n, size_t axes, const size_t *info, const T *in, T *out, T factor, T offset) {     \
        each(n, [&](size_t i) { out[i] = narrow<T>(wide(in[place(i, axes, info, info + axes)]) * wide(factor) + wide(offset)); });  \
    }                                                                                                                               \
    KERNEL(1024, fast_sum_##S)(size_t n, size_t together, size_t axes, const size_t *info, const T *in, T *out) {      \
        if (threadIdx.x) return;                                                                                                    \
        double sum = 0;                                                                                                             \
        for (size_t i = blockIdx.x * together; i < min(n, (blockIdx.x + 1) * together); ++i)                                        \
            sum += wide(in[place(i, axes, info, info + axes)]);                                                                     \
        out[blockIdx.x] = narrow<T>(sum);                                                                                           \
    }                                                                                                                               \
    KERNEL(1024, fast_sum_small_##S)(size_t n, size_t together, size_t axes, const size_t *info, const T *in, T *out) { \
        each(n, [&](size_t o) {                                                                                                     \
            double sum = 0;                                                                                                         \
            for (size_t i = o * together; i < (o + 1) * together; ++i) sum += wide(in[place(i, axes, info, info + axes)]);          \
            out[o] = narrow<T>(sum);                                                                                                \
        });                                                                                                                         \
    }                                                                                                                               \
    KERNEL(1024, usqrt_##S)(size_t n, size_t axes, const size_t *info, const T *in, T *out) {                          \
        each(n, [&](size_t i) { out[i] = narrow<T>(sqrt(wide(in[place(i, axes, info, info + axes)]))); });                          \
    }                                                                                                                               \
    HOST_KERNEL(affine_##S) HOST_KERNEL(fast_sum_##S) HOST_KERNEL(fast_sum_small_##S) HOST_KERNEL(usqrt_##S)
ARITHMETIC(float, f32)
ARITHMETIC(double, f64)
ARITHMETIC(bf16, bf16)

#define CAST(FROM, F, TO, T)                                                                                                        \
    KERNEL(1024, cast_##F##_##T)(size_t n, size_t axes, const size_t *info, const FROM *in, TO *out) {                 \
        each(n, [&](size_t i) { out[i] = narrow<TO>(wide(in[place(i, axes, info, info + axes)])); });                               \
    }                                                                                                                               \
    HOST_KERNEL(cast_##F##_##T)
CAST(float, f32, bf16, bf16)
CAST(bf16, bf16, float, f32)
CAST(float, f32, double, f64)
CAST(double, f64, float, f32)
