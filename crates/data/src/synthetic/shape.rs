//! The ten outlines, as signed distances: negative inside, in units of the object's radius (about 1 from centre to tip).
//!
//! Formulas after I. Quilez, "2D distance functions"; a few are bounds and not exact distances, which is enough for an edge one
//! pixel soft.

use std::f64::consts::{FRAC_PI_3, PI};

/// Signed distance of the point `(x, y)` from the outline of `class`.
pub(super) fn distance(class: usize, x: f64, y: f64) -> f64 {
    let radius = x.hypot(y);
    match class {
        0 => radius - 0.9,
        1 => x.abs().max(y.abs()) - 0.78,
        2 => regular(3, x, y, 0.52),
        3 => star(x, y),
        4 => (radius - 0.68).abs() - 0.28,
        5 => {
            let (long, short) = (x.abs().max(y.abs()), x.abs().min(y.abs()));
            (long - 0.98).max(short - 0.33)
        }
        6 => (radius - 0.97).max(0.66 - (x - 0.52).hypot(y)),
        7 => arrow(x, y),
        8 => heart(x, y),
        _ => regular(6, x, y, 0.82),
    }
}

/// A regular polygon whose sides are `inner` from the centre.
fn regular(sides: u32, x: f64, y: f64, inner: f64) -> f64 {
    let sector = 2.0 * PI / f64::from(sides);
    let angle = y.atan2(x).rem_euclid(sector) - sector / 2.0;
    x.hypot(y) * angle.cos() - inner
}

/// Five points.
fn star(x: f64, y: f64) -> f64 {
    let sector = 2.0 * PI / 5.0;
    let angle = (y.atan2(x).rem_euclid(sector) - sector / 2.0).abs();
    let (tip, notch) = (1.1, 0.5);
    // The edge from the notch (angle 0) to the tip (angle of half a sector), as a line through both.
    let (tip_x, tip_y) = (tip * (sector / 2.0).cos(), tip * (sector / 2.0).sin());
    let (along_x, along_y) = (tip_x - notch, tip_y);
    let (point_x, point_y) = (x.hypot(y) * angle.cos() - notch, x.hypot(y) * angle.sin());
    (point_x * along_y - point_y * along_x) / along_x.hypot(along_y)
}

/// A shaft and a head, pointing along x.
fn arrow(x: f64, y: f64) -> f64 {
    let shaft = (x.abs() - 0.85).max(y.abs() - 0.3).max(x - 0.3);
    let slope = FRAC_PI_3;
    let head = ((x - 1.0) * slope.sin() * 0.9 + y.abs() * slope.cos() * 1.1).max(-0.05 - x);
    shaft.min(head)
}

/// Two lobes over a point, upside down.
fn heart(x: f64, y: f64) -> f64 {
    let (x, y) = (x.abs(), y + 0.1);
    let lobe = (x - 0.42).hypot(y - 0.3) - 0.52;
    let point = ((x + 0.9 * (-y)) * 0.743 - 0.67).max(y - 0.42).max(-y - 1.0);
    lobe.min(point)
}
