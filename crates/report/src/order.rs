//! Compares the order of the rows with the paper's, pair by pair, and marks the differences that the size of
//! the test set can explain.

use crate::section::Section;

/// A pair of rows that the paper and the measurement rank differently.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inversion {
    /// The row that the paper ranks higher and the measurement lower.
    pub(crate) paper_higher: Side,
    /// The row that the paper ranks lower and the measurement higher.
    pub(crate) paper_lower: Side,
    /// The half-width of a 95% interval of the measured difference, in points; `None` if the size of the test
    /// set is unknown.
    pub(crate) margin: Option<f64>,
}

/// One row of an [`Inversion`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Side {
    pub(crate) row: String,
    pub(crate) paper: f64,
    pub(crate) measured: f64,
}

impl Inversion {
    /// Returns the measured difference in points, which is positive.
    pub(crate) fn gap(&self) -> f64 {
        self.paper_lower.measured - self.paper_higher.measured
    }

    /// Returns whether chance can explain the difference.
    pub(crate) fn within_noise(&self) -> bool {
        self.margin.is_some_and(|margin| self.gap() <= margin)
    }
}

/// The number of pairs that both the paper and the measurement rank, and the inverted pairs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) pairs: usize,
    pub(crate) inversions: Vec<Inversion>,
}

/// Compares the order of a section's rows under its main metric with the paper's. The margin adds the
/// binomial variance over `test_images` of both rows and the variance of each mean over seeds. The rows are
/// treated as independent. Since they share their images, the margin is probably too wide.
pub(crate) fn compare(section: &Section<'_>, test_images: Option<u64>) -> Order {
    let rows: Vec<(Side, f64)> = section
        .lines_of(section.main_metric)
        .into_iter()
        .filter_map(|line| {
            let (paper, measured) = line.paper.zip(line.mean)?;
            let seeds = line.std.map_or(0.0, |std| std * std / line.n as f64);
            Some((Side { row: line.row.clone(), paper, measured }, seeds))
        })
        .collect();
    let variance = |(side, seeds): &(Side, f64)| {
        let images = test_images.filter(|&images| images > 0)?;
        Some(side.measured * (100.0 - side.measured) / images as f64 + seeds)
    };
    let mut order = Order { pairs: 0, inversions: Vec::new() };
    for (place, a) in rows.iter().enumerate() {
        for b in &rows[place + 1..] {
            if (a.0.paper - b.0.paper).abs() < f64::EPSILON {
                continue;
            }
            order.pairs += 1;
            let (higher, lower) = if a.0.paper > b.0.paper { (a, b) } else { (b, a) };
            if higher.0.measured < lower.0.measured {
                let margin = variance(a).zip(variance(b)).map(|(a, b)| 1.96 * (a + b).sqrt());
                order.inversions.push(Inversion {
                    paper_higher: higher.0.clone(),
                    paper_lower: lower.0.clone(),
                    margin,
                });
            }
        }
    }
    order.inversions.sort_by(|a, b| b.gap().total_cmp(&a.gap()));
    order
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fake;
    use crate::table::Table;

    #[test]
    fn counts_each_inverted_pair_once() {
        let runs = fake::quick_runs(&[0]);
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        let order = compare(section, Some(2_000));
        assert_eq!(order.pairs, 36);
        // The expected inversions are counted directly: every pair (a, b) in which the paper ranks a above b,
        // and the runs rank b above a.
        let value = |row: &str| section.line(row, "knn").unwrap().clone();
        let mut inverted = 0;
        for a in &section.rows {
            for b in &section.rows {
                let (a, b) = (value(a), value(b));
                inverted += usize::from(a.paper > b.paper && a.mean < b.mean);
            }
        }
        assert!(inverted > 0);
        assert_eq!(order.inversions.len(), inverted);
        assert!(order.inversions.iter().all(|i| i.gap() > 0.0 && i.paper_higher.paper > i.paper_lower.paper));
    }

    #[test]
    fn a_gap_below_the_margin_is_noise() {
        let side = |row: &str, paper, measured| Side { row: row.into(), paper, measured };
        let pair = |gap| Inversion {
            paper_higher: side("a", 2.0, 50.0),
            paper_lower: side("b", 1.0, 50.0 + gap),
            margin: Some(3.1),
        };
        assert!(pair(1.0).within_noise() && !pair(4.0).within_noise());
        let mut runs = fake::quick_runs(&[0]);
        for run in &mut runs {
            run.record.metrics.get_mut("knn_top1").unwrap().last =
                if run.record.row == "nce" { 50.0 } else { 51.0 };
        }
        let table = Table::new("table1", &runs).unwrap();
        let section = &table.sections(&runs)[0];
        let order = compare(section, Some(2_000));
        // 1.96 sqrt((50 * 50 + 51 * 49) / 2000) = 3.0985
        assert!(
            order.inversions.iter().all(|i| (i.margin.unwrap() - 3.0985).abs() < 1e-3 && i.within_noise())
        );
        assert!(compare(section, None).inversions.iter().all(|i| i.margin.is_none() && !i.within_noise()));
    }
}
