//! The ten textures. A texture gives the share of the second color of the object at a point, from 0 to 1.

use std::f64::consts::PI;

/// The properties that vary within a kind of texture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weave {
    /// Length of a period, in units of the radius of the object.
    pub period: f64,
    /// Shift along both axes, in periods.
    pub shift: [f64; 2],
    /// Half the width of an edge between the two colors, in periods.
    pub soft: f64,
}

/// Returns the texture of `class` at `(x, y)` in units of the radius of the object.
pub(super) fn mix(class: usize, weave: Weave, x: f64, y: f64) -> f64 {
    let Weave { period, shift, soft } = weave;
    let (u, v) = (x / period + shift[0], y / period + shift[1]);
    // This is a wave of period 1 whose upper half becomes the second color, with soft edges.
    let band = |at: f64| edge((2.0 * PI * at).sin() / (2.0 * PI), soft);
    let cell = |at: f64| at - at.floor() - 0.5;
    match class {
        // Dots on a hexagonal grid.
        0 => {
            let row = (v * 1.15).floor();
            let (x, y) = (cell(u + 0.5 * row.rem_euclid(2.0)), cell(v * 1.15) / 1.15);
            edge(0.32 - x.hypot(y), soft)
        }
        // A checkerboard, which repeats twice in a period of stripes.
        1 => edge((PI * u).sin() * (PI * v).sin() / 2.0, soft),
        2 => band(u),
        // Rays from the center.
        3 => {
            let rays = (5.0 / period.max(0.3)).round().clamp(9.0, 15.0);
            edge((rays * y.atan2(x) + 2.0 * PI * shift[0]).sin() / (2.0 * PI), soft)
        }
        // Specks: a hash of the place of a grid cell decides which color the cell has.
        4 => {
            let (column, row) = ((u * 1.6).floor() as i64, (v * 1.6).floor() as i64);
            let hash =
                (column.wrapping_mul(0x9E37_79B9) ^ row.wrapping_mul(0x85EB_CA6B)).wrapping_mul(0xC2B2_AE35);
            f64::from(u8::from((hash >> 16) & 7 < 3))
        }
        // Thin lines in both directions.
        5 => edge(0.17 - cell(u).abs().min(cell(v).abs()), soft),
        // Rings around a point beside the center.
        6 => band((x + 0.5).hypot(y) / period + shift[0]),
        // Zigzag stripes.
        7 => band(v * 0.9 + (cell(u * 0.6).abs() - 0.25) * 1.6),
        // Waves.
        8 => band(v + 0.3 * (2.0 * PI * u * 0.45).sin()),
        // No texture: a gradient from one color to the other across the object.
        _ => {
            (0.5 + 0.25 * (x * (2.0 * PI * shift[0]).cos() + y * (2.0 * PI * shift[0]).sin())).clamp(0.0, 1.0)
        }
    }
}

/// Returns 0 below zero and 1 above it, with a ramp of half-width `soft` between.
fn edge(at: f64, soft: f64) -> f64 {
    (at / (2.0 * soft) + 0.5).clamp(0.0, 1.0)
}
