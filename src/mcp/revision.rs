//! Which revisions of the protocol are served, and what differs.

/// A dated revision of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// 2024-11-05.
    V2024_11_05,
    /// 2025-03-26: the only one that may send batches.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
    /// 2026-07-28: stateless, every request describes itself.
    V2026_07_28,
}

/// How a request is validated and its answer shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Begins with `initialize`. One shape for all of its revisions; errors travel in HTTP 200.
    Legacy,
    /// Headers mirror the body, results are stamped, errors have an HTTP status.
    Modern,
}

impl Revision {
    /// All of them, latest first, as `server/discover` lists them.
    pub const ALL: [Self; 5] = [
        Self::V2026_07_28,
        Self::V2025_11_25,
        Self::V2025_06_18,
        Self::V2025_03_26,
        Self::V2024_11_05,
    ];
    /// What `initialize` answers to a version that is not a legacy one.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// What a request without a version is taken for.
    pub const ASSUMED: Self = Self::V2025_03_26;

    /// The revision of that date.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// Its date.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Its era.
    #[must_use]
    pub fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Legacy
            }
            Self::V2026_07_28 => Era::Modern,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_revision_is_modern_and_initialize_never_offers_it() {
        let modern: Vec<_> =
            Revision::ALL.into_iter().filter(|revision| revision.era() == Era::Modern).collect();
        assert_eq!(modern, [Revision::V2026_07_28]);
        assert_eq!(Revision::LATEST_LEGACY.era(), Era::Legacy);
        assert_eq!(Revision::named("2026-07-28"), Some(Revision::V2026_07_28));
        assert_eq!(Revision::named("2026-07-28 "), None);
    }
}
