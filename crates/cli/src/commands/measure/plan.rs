//! What is asked for beside the rows, and what follows from it before any row is read.

use super::names::Names;
use super::peers::{self, Protocol};
use super::{selection, settings};
use crate::arguments::{LeftOut, MetricName, Peer, Redrawn};
use crate::failure::Failure;
use invaspread_runner::config::{Override, Resolved, expand, resolve_over};
use invaspread_runner::embeddings::Scaling;
use invaspread_runner::engine::{Selection, Units};

/// What is asked for.
pub(super) struct Asked {
    pub(super) names: Names,
    pub(super) settings: Vec<Override>,
    pub(super) has_gallery: bool,
    /// The library whose protocol is set.
    pub(super) peer: Option<Peer>,
    pub(super) metrics: Vec<MetricName>,
    /// The false match rates.
    pub(super) fmr: Option<Vec<f64>>,
    pub(super) unscaled: bool,
    /// What is drawn again for intervals; `None` for the usual.
    pub(super) intervals: Option<Redrawn>,
    /// The rows of its own source that a query leaves out, if sources are given.
    pub(super) leaves_out: LeftOut,
    /// Whether each class is measured too.
    pub(super) per_class: bool,
}

/// What is measured, and how.
pub(super) struct Plan {
    pub(super) names: Names,
    /// The settings of the protocol and those that were typed.
    pub(super) overrides: Vec<Override>,
    pub(super) resolved: Resolved,
    pub(super) protocol: Option<Protocol>,
    pub(super) selection: Selection,
    pub(super) scaling: Scaling,
    /// What is drawn again; `None` for no intervals.
    pub(super) units: Option<Units>,
    pub(super) leaves_out: LeftOut,
}

impl Plan {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// Returns an error of usage that names the setting or the argument.
    pub(super) fn new(asked: &Asked) -> Result<Self, Failure> {
        let Asked { names, has_gallery, .. } = *asked;
        let mut overrides = expand(&asked.settings, false)?.remove(0);
        let protocol = asked.peer.map(peers::of);
        if let Some(protocol) = &protocol {
            overrides = protocol.over(names, overrides, has_gallery)?;
        }
        let resolved = resolve_over(None, &overrides)?;
        let selection = selection::of(asked, protocol.as_ref())?;
        settings::check(names, &overrides, has_gallery, &selection)?;
        settings::check_clustering(asked, &resolved.config)?;
        let unscaled = asked.unscaled || protocol.as_ref().is_some_and(|protocol| protocol.unscaled);
        let units = match (asked.intervals, has_gallery) {
            (Some(Redrawn::None), _) => None,
            (Some(Redrawn::Queries), _) | (None, true) => Some(Units::Queries),
            (Some(Redrawn::Classes), _) | (None, false) => Some(Units::Classes),
        };
        Ok(Self {
            names,
            overrides,
            resolved,
            protocol,
            selection,
            scaling: if unscaled { Scaling::Unscaled } else { Scaling::UnitLength },
            units,
            leaves_out: asked.leaves_out,
        })
    }
}
