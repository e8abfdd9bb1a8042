// Makes views of images that lie on the device as bytes: crop and resize, color changes, grayscale, mirror,
// normalization. The bytes are those that crate `augment` makes on the CPU; its files name the code whose
// arithmetic this is. The random numbers of each view come with the launch, 16 words for each view.
//
// A block makes one view. Wherever the CPU rounds after each step, this code requests the same rounding by
// name. Otherwise the compiler would fuse a product and a sum, and a byte would differ.
#include "device.cuh"

// The layout of `ViewPlan` in crate `augment`.
enum Word { PADDED, LEFT, TOP, WIDTH, HEIGHT, TO_WIDTH, TO_HEIGHT, MIDDLE_LEFT, MIDDLE_TOP, DOWN_FIRST, CHANGES, FACTORS, FLAGS = 15, WORDS };
enum Change { NONE, BRIGHTNESS, CONTRAST, SATURATION, HUE };
enum Flag { GRAYSCALE = 1, FLIP = 2 };

static constexpr int PRECISION_BITS = 22, HALF = 1 << (PRECISION_BITS - 1);

struct ViewSettings {
    // Sizes of the stored images and of a view.
    int width, height, size;
    // Channels of a view's pixel: three, then zeros.
    int channels;
    // Whether blue comes first.
    int bgr;
    // Room for the weights of one output position.
    int taps;
    // Bytes that a view's intermediate image may take.
    int intermediate;
    // The number of the step within the epoch whose images and plans are given, or null if they are of this
    // launch alone.
    const unsigned *step;
};

// Computes the fixed-point weights of output position `to`; returns the first source position and the number
// of weights.
__device__ int2 weights_of(int to, int from_length, int to_length, int *weights) {
    double scale = (double)from_length / to_length, stretch = fmax(scale, 1.0);
    double center = __dmul_rn(to + 0.5, scale);
    int first = (int)fmax(center - stretch + 0.5, 0.0), end = min((int)(center + stretch + 0.5), from_length);
    double shrink = 1.0 / stretch, total = 0.0;
    for (int at = first; at < end; ++at) total += fmax(1.0 - fabs(__dmul_rn(at - center + 0.5, shrink)), 0.0);
    for (int at = first; at < end; ++at) {
        double weight = fmax(1.0 - fabs(__dmul_rn(at - center + 0.5, shrink)), 0.0);
        double scaled = __dmul_rn(total == 0.0 ? weight : weight / total, 1 << PRECISION_BITS);
        weights[at - first] = (int)(scaled < 0.0 ? scaled - 0.5 : scaled + 0.5);
    }
    return {first, end - first};
}

__device__ __forceinline__ unsigned char fixed_to_byte(int sum) { return (unsigned char)min(max(sum >> PRECISION_BITS, 0), 255); }

// One pass of a resize: along the rows (`across`) or down the columns, from (rows, columns, 3), where a row
// begins every `stride` bytes. Only `lines` lines of the resized axis are made, from `begin` on; the other
// axis keeps its length.
__device__ void pass(const unsigned char *from, size_t stride, int rows, int columns, bool across, int to_length, int begin, int lines,
                     unsigned char *to, int *weights, int2 *bounds, int taps) {
    int from_length = across ? columns : rows;
    for (int i = threadIdx.x; i < lines; i += blockDim.x) bounds[i] = weights_of(begin + i, from_length, to_length, weights + i * taps);
    __syncthreads();
    int out_rows = across ? rows : lines, out_columns = across ? lines : columns;
    for (int i = threadIdx.x; i < out_rows * out_columns * 3; i += blockDim.x) {
        int channel = i % 3, x = i / 3 % out_columns, y = i / 3 / out_columns, line = across ? x : y;
        int2 bound = bounds[line];
        int sum = HALF;
        for (int tap = 0; tap < bound.y; ++tap) {
            int column = across ? bound.x + tap : x, row = across ? y : bound.x + tap;
            sum += weights[line * taps + tap] * from[row * stride + column * 3 + channel];
        }
        to[i] = fixed_to_byte(sum);
    }
    __syncthreads();
}

// Copies a part of an image, byte by byte.
__device__ void copy_part(const unsigned char *from, size_t stride, int rows, int columns, unsigned char *to) {
    for (int i = threadIdx.x; i < rows * columns * 3; i += blockDim.x) to[i] = from[i / (columns * 3) * stride + i % (columns * 3)];
    __syncthreads();
}

__device__ __forceinline__ int luma(const unsigned char *p) { return (19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 0x8000) >> 16; }

__device__ __forceinline__ unsigned char blend(int degenerate, int x, float factor) {
    float mixed = __fadd_rn((float)degenerate, __fmul_rn(factor, (float)x - (float)degenerate));
    return (unsigned char)fminf(fmaxf(mixed, 0.0f), 255.0f);
}

// Shifts the hue by way of 8-bit HSV, with the precision that Pillow uses at each step, as in `color.rs`.
__device__ void turn_hue(unsigned char *p, int shift) {
    int r = p[0], g = p[1], b = p[2], most = max(max(r, g), b), least = min(min(r, g), b);
    int hue = 0, saturation = 0;
    if (most != least) {
        float range = (float)(most - least), ratio = __fdiv_rn(range, (float)most);
        float below_r = __fdiv_rn((float)(most - r), range), below_g = __fdiv_rn((float)(most - g), range);
        float below_b = __fdiv_rn((float)(most - b), range);
        float sixth = r == most   ? __fsub_rn(below_b, below_g)
                      : g == most ? (float)(2.0 + (double)below_r - (double)below_b)
                                  : (float)(4.0 + (double)below_g - (double)below_r);
        double turned = (double)sixth / 6.0 + 1.0;
        float turn = (float)(turned - floor(turned));
        hue = (int)__dmul_rn((double)turn, 255.0);
        saturation = (int)__dmul_rn((double)ratio, 255.0);
    }
    hue = (hue + shift) & 255;
    if (saturation == 0) {
        p[0] = p[1] = p[2] = (unsigned char)most;
        return;
    }
    double turned = hue * 6.0 / 255.0, sector = floor(turned);
    float within = (float)(turned - sector), share = (float)(saturation / 255.0);
    // `shades` holds p, q, t and v, a byte each. The table after it says which of them each channel takes in
    // each sector, two bits for a channel. Both stay in registers; an array with a variable index would lie
    // in memory.
    unsigned shades = (unsigned)most << 24;
    for (int i = 0; i < 3; ++i) {
        double keep = i == 0 ? 1.0 - (double)share
                      : i == 1 ? 1.0 - (double)__fmul_rn(share, within)
                               : 1.0 - __dmul_rn((double)share, 1.0 - (double)within);
        shades |= (unsigned)(int)fmin(fmax(round(__dmul_rn((double)most, keep)), 0.0), 255.0) << (8 * i);
    }
    const unsigned long long taken = 013ull | 015ull << 6 | 054ull << 12 | 064ull << 18 | 062ull << 24 | 023ull << 30;
    unsigned which = (unsigned)(taken >> (6 * ((int)sector % 6))) & 63;
    for (int channel = 0; channel < 3; ++channel) p[channel] = (unsigned char)(shades >> (8 * (which >> (2 * channel) & 3)));
}

// Shared memory: the view's bytes, then weights and bounds of one pass, then the intermediate image if
// `scratch` is null.
template <typename T>
__device__ void view(const unsigned char *images, const unsigned *index, const unsigned *plans, const float *normalized,
                     unsigned char *scratch, T *views, ViewSettings settings) {
    DYNAMIC_SHARED(unsigned char, shared);
    __shared__ unsigned total;
    const int size = settings.size, pixels = size * size;
    size_t number = (settings.step ? (size_t)*settings.step * gridDim.x : 0) + blockIdx.x;
    const unsigned *plan = plans + number * WORDS;
    size_t stride = (size_t)settings.width * 3;
    const unsigned char *image = images + (size_t)index[number] * settings.height * stride;
    unsigned char *bytes = shared;
    int2 *bounds = reinterpret_cast<int2 *>(shared + (pixels * 3 + 15) / 16 * 16);
    int *weights = reinterpret_cast<int *>(bounds + size);
    unsigned char *between = scratch ? scratch + (size_t)blockIdx.x * settings.intermediate
                                     : reinterpret_cast<unsigned char *>(weights + size * settings.taps);
    int left = (int)plan[LEFT], top = (int)plan[TOP], width = (int)plan[WIDTH], height = (int)plan[HEIGHT];
    if (plan[PADDED]) {
        for (int i = threadIdx.x; i < pixels * 3; i += blockDim.x) {
            int x = i / 3 % size + left, y = i / 3 / size + top;
            bool inside = x >= 0 && y >= 0 && x < settings.width && y < settings.height;
            bytes[i] = inside ? image[y * stride + x * 3 + i % 3] : 0;
        }
    } else {
        // Both passes make only the middle part, which is kept. A pass that changes no length is a copy.
        const unsigned char *window = image + top * stride + left * 3;
        int to_width = (int)plan[TO_WIDTH], to_height = (int)plan[TO_HEIGHT], x = (int)plan[MIDDLE_LEFT], y = (int)plan[MIDDLE_TOP];
        bool across = to_width != width, down = to_height != height;
        if (plan[DOWN_FIRST]) {
            if (down) pass(window, stride, height, width, false, to_height, y, size, between, weights, bounds, settings.taps);
            else copy_part(window + y * stride, stride, size, width, between);
            if (across) pass(between, (size_t)width * 3, size, width, true, to_width, x, size, bytes, weights, bounds, settings.taps);
            else copy_part(between + x * 3, (size_t)width * 3, size, size, bytes);
        } else {
            if (across) pass(window, stride, height, width, true, to_width, x, size, between, weights, bounds, settings.taps);
            else copy_part(window + x * 3, stride, height, size, between);
            if (down) pass(between, (size_t)size * 3, height, size, false, to_height, y, size, bytes, weights, bounds, settings.taps);
            else copy_part(between + (size_t)y * size * 3, (size_t)size * 3, size, size, bytes);
        }
    }
    __syncthreads();
    for (int i = 0; i < 4; ++i) {
        int change = plan[CHANGES] >> (8 * i) & 255;
        float factor = __uint_as_float(plan[FACTORS + i]);
        int mean = 0;
        if (change == CONTRAST) {
            // Each thread first sums the gray values of its own pixels; sums of whole numbers are the same in
            // any order.
            if (threadIdx.x == 0) total = 0;
            __syncthreads();
            unsigned mine = 0;
            for (int p = threadIdx.x; p < pixels; p += blockDim.x) mine += luma(bytes + p * 3);
            atomicAdd(&total, mine);
            __syncthreads();
            mean = (int)((double)total / pixels + 0.5);
        }
        // Each thread works on its own pixels, so no barrier is needed between the changes.
        for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
            unsigned char *pixel = bytes + p * 3;
            if (change == HUE) {
                turn_hue(pixel, (int)plan[FACTORS + i]);
            } else if (change != NONE) {
                int degenerate = change == BRIGHTNESS ? 0 : change == CONTRAST ? mean : luma(pixel);
                for (int channel = 0; channel < 3; ++channel) pixel[channel] = blend(degenerate, pixel[channel], factor);
            }
        }
        // The next sum must not begin before the last one is read.
        __syncthreads();
    }
    T *out = views + (size_t)blockIdx.x * pixels * settings.channels;
    for (int p = threadIdx.x; p < pixels; p += blockDim.x) {
        const unsigned char *pixel = bytes + p * 3;
        int grey = luma(pixel), x = p % size, y = p / size;
        if (plan[FLAGS] & FLIP) x = size - 1 - x;
        T *to = out + (size_t)(y * size + x) * settings.channels;
        for (int channel = 0; channel < settings.channels; ++channel) {
            float value = 0.0f;
            if (channel < 3) {
                int from = settings.bgr ? 2 - channel : channel;
                value = normalized[from * 256 + (plan[FLAGS] & GRAYSCALE ? grey : pixel[from])];
            }
            to[channel] = from_float<T>(value);
        }
    }
}

extern "C" {
KERNEL(256, augment_views_f32)(const unsigned char *images, const unsigned *index, const unsigned *plans, const float *normalized,
                                  unsigned char *scratch, float *views, ViewSettings settings) {
    view(images, index, plans, normalized, scratch, views, settings);
}
KERNEL(256, augment_views_bf16)(const unsigned char *images, const unsigned *index, const unsigned *plans, const float *normalized,
                                   unsigned char *scratch, bf16 *views, ViewSettings settings) {
    view(images, index, plans, normalized, scratch, views, settings);
}
}

HOST_KERNEL(augment_views_f32)
HOST_KERNEL(augment_views_bf16)
