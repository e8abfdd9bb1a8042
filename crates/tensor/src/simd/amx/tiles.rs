//! Products of tiles: eight registers of 16 rows by 64 bytes, pairs of bf16 with sums in f32.
//!
//! `tdpbf16ps` adds to each of 16 x 16 sums the products of 32 numbers. Factors and sums below f32's smallest
//! normal number count as zero. Rust's intrinsics for it are unstable, so this is assembly.

use super::TILE;
use std::arch::asm;

/// What the eight registers hold: 16 rows of 64 bytes each (palette 1).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE_TILES: Configuration = {
    let mut whole =
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < 8 {
        (whole.row_bytes[register], whole.rows[register]) = (64, 16);
        register += 1;
    }
    whole
};

/// The tile registers of this thread. They are free again when this is dropped: a thread whose registers are
/// in use costs the system 8 KiB more each time that it is suspended.
pub(crate) struct Tiles {
    /// Registers belong to a thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl Tiles {
    /// Takes the registers.
    ///
    /// # Safety
    /// The processor must have AMX with bf16, and the process the permission to use it
    /// (`InstructionSet::Amx`).
    pub(crate) unsafe fn take() -> Self {
        // SAFETY: the caller guarantees that there are tiles; palette 1 has eight of this size.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack, readonly, preserves_flags));
        }
        Self { thread: std::marker::PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the registers were taken in `take`.
        unsafe {
            asm!("tilerelease", options(nostack, nomem, preserves_flags));
        }
    }
}

/// The left operand: the first tile of step `s` begins `offsets[s]` bytes behind `start`, the second one `tile`
/// bytes behind it, the next two `pair` bytes behind these, and so on. The rows of a tile are `row` bytes apart.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) start: *const u8,
    pub(crate) tile: usize,
    pub(crate) pair: usize,
    pub(crate) row: usize,
    pub(crate) offsets: &'a [usize],
}

/// The right operand: the tiles of column `j` lie one behind the other, from `j * column` bytes behind
/// `start` on.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) start: *const u8,
    pub(crate) column: usize,
}

/// The instructions that load the first registers from the sums, clear them, or store them.
macro_rules! of_sums {
    (load 1) => {
        "tileloadd tmm0, [{sums} + {line}*1]"
    };
    (load 2) => {
        concat!(of_sums!(load 1), "\ntileloadd tmm1, [{sums} + {line}*1 + 1024]")
    };
    (load 3) => {
        concat!(of_sums!(load 2), "\ntileloadd tmm2, [{sums} + {line}*1 + 2048]")
    };
    (load 4) => {
        concat!(of_sums!(load 3), "\ntileloadd tmm3, [{sums} + {line}*1 + 3072]")
    };
    (clear 1) => {
        "tilezero tmm0"
    };
    (clear 2) => {
        concat!(of_sums!(clear 1), "\ntilezero tmm1")
    };
    (clear 3) => {
        concat!(of_sums!(clear 2), "\ntilezero tmm2")
    };
    (clear 4) => {
        concat!(of_sums!(clear 3), "\ntilezero tmm3")
    };
    (store 1) => {
        "tilestored [{sums} + {line}*1], tmm0"
    };
    (store 2) => {
        concat!(of_sums!(store 1), "\ntilestored [{sums} + {line}*1 + 1024], tmm1")
    };
    (store 3) => {
        concat!(of_sums!(store 2), "\ntilestored [{sums} + {line}*1 + 2048], tmm2")
    };
    (store 4) => {
        concat!(of_sums!(store 3), "\ntilestored [{sums} + {line}*1 + 3072], tmm3")
    };
}

/// Declares the product of some tiles of rows and of columns. In its loop, `p` is the address of the first
/// left tile and `q` that of the first right one; the sums are the first registers, row by row.
macro_rules! product {
    ($name:ident: sums $sums:tt, step [$($step:literal)+]) => {
        unsafe fn $name(left: Left<'_>, right: Right, sums: *mut f32, add: bool) {
            // SAFETY: the caller of `Tiles::multiply` guarantees the operands and holds the registers.
            unsafe {
                asm!(
                    "test {p}, {p}",
                    "jz 2f",
                    of_sums!(load $sums),
                    "jmp 3f",
                    "2:",
                    of_sums!(clear $sums),
                    "3:",
                    // Small products need no distances; every operand must be named.
                    "# {tile} {skip} {column}",
                    "cmp {offset}, {end}",
                    "je 4f",
                    "mov {p}, [{offset}]",
                    "add {p}, {left}",
                    "mov {q}, {right}",
                    $($step,)+
                    "add {right}, 1024",
                    "add {offset}, 8",
                    "jmp 3b",
                    "4:",
                    of_sums!(store $sums),
                    offset = inout(reg) left.offsets.as_ptr() => _,
                    end = in(reg) left.offsets.as_ptr().add(left.offsets.len()),
                    left = in(reg) left.start,
                    tile = in(reg) left.tile,
                    skip = in(reg) left.pair.wrapping_sub(left.tile),
                    row = in(reg) left.row,
                    right = inout(reg) right.start => _,
                    column = in(reg) right.column,
                    sums = in(reg) sums,
                    line = in(reg) 64usize,
                    // The address of a tile, but first whether there are sums to add to.
                    p = inout(reg) usize::from(add) => _,
                    q = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product! {
    two_by_two:
    sums 4, step [
        "tileloadd tmm4, [{p} + {row}*1]"
        "tileloadd tmm6, [{q} + {line}*1]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "add {q}, {column}"
        "tileloadd tmm7, [{q} + {line}*1]"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "add {p}, {tile}"
        "tileloadd tmm5, [{p} + {row}*1]"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ]
}

product! {
    two_by_one:
    sums 2, step [
        "tileloadd tmm7, [{q} + {line}*1]"
        "tileloadd tmm4, [{p} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm7"
        "add {p}, {tile}"
        "tileloadd tmm5, [{p} + {row}*1]"
        "tdpbf16ps tmm1, tmm5, tmm7"
    ]
}

product! {
    one_by_two:
    sums 2, step [
        "tileloadd tmm7, [{p} + {row}*1]"
        "tileloadd tmm4, [{q} + {line}*1]"
        "tdpbf16ps tmm0, tmm7, tmm4"
        "add {q}, {column}"
        "tileloadd tmm5, [{q} + {line}*1]"
        "tdpbf16ps tmm1, tmm7, tmm5"
    ]
}

product! {
    one_by_one:
    sums 1, step [
        "tileloadd tmm7, [{q} + {line}*1]"
        "tileloadd tmm4, [{p} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm7"
    ]
}

product! {
    three_by_one:
    sums 3, step [
        "tileloadd tmm7, [{q} + {line}*1]"
        "tileloadd tmm4, [{p} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm7"
        "add {p}, {tile}"
        "tileloadd tmm5, [{p} + {row}*1]"
        "tdpbf16ps tmm1, tmm5, tmm7"
        "add {p}, {skip}"
        "tileloadd tmm6, [{p} + {row}*1]"
        "tdpbf16ps tmm2, tmm6, tmm7"
    ]
}

product! {
    four_by_one:
    sums 4, step [
        "tileloadd tmm7, [{q} + {line}*1]"
        "tileloadd tmm4, [{p} + {row}*1]"
        "tdpbf16ps tmm0, tmm4, tmm7"
        "add {p}, {tile}"
        "tileloadd tmm5, [{p} + {row}*1]"
        "tdpbf16ps tmm1, tmm5, tmm7"
        "add {p}, {skip}"
        "tileloadd tmm6, [{p} + {row}*1]"
        "tdpbf16ps tmm2, tmm6, tmm7"
        "add {p}, {tile}"
        "tileloadd tmm4, [{p} + {row}*1]"
        "tdpbf16ps tmm3, tmm4, tmm7"
    ]
}

product! {
    one_by_four:
    sums 4, step [
        "tileloadd tmm7, [{p} + {row}*1]"
        "tileloadd tmm4, [{q} + {line}*1]"
        "tdpbf16ps tmm0, tmm7, tmm4"
        "add {q}, {column}"
        "tileloadd tmm5, [{q} + {line}*1]"
        "tdpbf16ps tmm1, tmm7, tmm5"
        "add {q}, {column}"
        "tileloadd tmm6, [{q} + {line}*1]"
        "tdpbf16ps tmm2, tmm7, tmm6"
        "add {q}, {column}"
        "tileloadd tmm4, [{q} + {line}*1]"
        "tdpbf16ps tmm3, tmm7, tmm4"
    ]
}

impl Tiles {
    /// Writes the products of `rows` tiles of rows by `columns` tiles of columns to `sums`,
    /// `[rows][columns][16][16]`, or adds them to what is there.
    ///
    /// # Safety
    /// `left` must hold `rows` tiles and `right` `columns` tiles for each step, and `sums` all sums.
    #[expect(clippy::unused_self, reason = "whoever has `Tiles` has the registers")]
    pub(crate) unsafe fn multiply(
        &self,
        left: Left<'_>,
        right: Right,
        size: (usize, usize),
        sums: *mut f32,
        add: bool,
    ) {
        // SAFETY: the caller guarantees it.
        unsafe { multiply(left, right, size, sums, add) }
    }
}

/// Does the work of [`Tiles::multiply`]: takes large products apart.
unsafe fn multiply(left: Left<'_>, right: Right, (rows, columns): (usize, usize), sums: *mut f32, add: bool) {
    // SAFETY: the caller guarantees it.
    unsafe {
        match (rows, columns) {
            (1, 1) => one_by_one(left, right, sums, add),
            (1, 2) => one_by_two(left, right, sums, add),
            (1, 4) => one_by_four(left, right, sums, add),
            (2, 1) => two_by_one(left, right, sums, add),
            (2, 2) => two_by_two(left, right, sums, add),
            (3, 1) => three_by_one(left, right, sums, add),
            (4, 1) => four_by_one(left, right, sums, add),
            (1, columns) => {
                one_by_two(left, right, sums, add);
                let right = Right { start: right.start.add(2 * right.column), ..right };
                multiply(left, right, (1, columns - 2), sums.add(2 * TILE), add);
            }
            (rows, 1) => {
                four_by_one(left, right, sums, add);
                let left = Left { start: left.start.add(2 * left.pair), ..left };
                multiply(left, right, (rows - 4, 1), sums.add(4 * TILE), add);
            }
            (rows, columns) => {
                assert!(columns <= 2, "products of {rows} x {columns} tiles are not used");
                multiply(left, right, (2, columns), sums, add);
                let left = Left { start: left.start.add(left.pair), ..left };
                multiply(left, right, (rows - 2, columns), sums.add(2 * columns * TILE), add);
            }
        }
    }
}
