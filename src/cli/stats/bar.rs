//! A bar of what a segment's bytes are, to be read at a glance and without colour.

use anstyle::{AnsiColor, Style};

/// What bytes can be, in the order in which a bar has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Live,
    Stale,
    Expired,
    Tombstones,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Live, Kind::Stale, Kind::Expired, Kind::Tombstones];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Live => "live",
            Kind::Stale => "stale",
            Kind::Expired => "expired",
            Kind::Tombstones => "tombstones",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Kind::Live => AnsiColor::Green,
            Kind::Stale => AnsiColor::Yellow,
            Kind::Expired => AnsiColor::Blue,
            Kind::Tombstones => AnsiColor::Red,
        };
        color.on_default()
    }
}

/// So many bytes of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(pub(crate) [u64; KINDS.len()]);

impl Shares {
    pub(crate) fn of(self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    pub(crate) fn total(self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn plus(self, other: Shares) -> Shares {
        Shares(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }

    /// How many characters of `width` each kind gets: in proportion, but one at least for what is
    /// there at all, so that it is seen.
    fn cells(self, width: usize) -> [usize; KINDS.len()] {
        let total = self.total();
        if total == 0 {
            return [0; KINDS.len()];
        }
        let mut cells = self.0.map(|bytes| {
            let scaled = u128::from(bytes) * width as u128 + u128::from(total / 2);
            ((scaled / u128::from(total)) as usize).max(usize::from(bytes > 0))
        });
        // What rounding gave or took is the largest's to bear.
        let largest = (0..cells.len()).max_by_key(|at| self.0[*at]).unwrap_or(0);
        let others: usize = cells.iter().sum::<usize>() - cells[largest];
        cells[largest] = width.saturating_sub(others);
        cells
    }
}

/// The characters that bars are drawn with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pen {
    glyphs: [char; KINDS.len()],
}

impl Pen {
    pub(crate) fn new(has_unicode: bool) -> Pen {
        let glyphs = if has_unicode {
            ['█', '░', '▒', '×']
        } else {
            ['#', '-', '~', 'x']
        };
        Pen { glyphs }
    }

    /// What a kind is drawn with.
    pub(crate) fn sample(self, kind: Kind) -> String {
        self.run(kind, 1)
    }

    /// A bar of `width` characters; spaces where there is nothing.
    pub(crate) fn bar(self, shares: Shares, width: usize) -> String {
        let cells = shares.cells(width);
        let drawn: String = KINDS
            .into_iter()
            .zip(cells)
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| self.run(kind, count))
            .collect();
        let blank = width - cells.iter().sum::<usize>().min(width);
        drawn + &" ".repeat(blank)
    }

    fn run(self, kind: Kind, count: usize) -> String {
        let style = kind.style();
        let glyph = self.glyphs[kind as usize];
        let run: String = std::iter::repeat_n(glyph, count).collect();
        format!("{style}{run}{style:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(shares: [u64; 4], width: usize) -> String {
        let bar = Pen::new(false).bar(Shares(shares), width);
        anstream::adapter::strip_str(&bar).to_string()
    }

    #[test]
    fn a_bar_is_in_proportion() {
        assert_eq!(drawn([100, 0, 0, 0], 10), "##########");
        assert_eq!(drawn([50, 50, 0, 0], 10), "#####-----");
        assert_eq!(drawn([40, 30, 20, 10], 10), "####---~~x");
        assert_eq!(drawn([0, 0, 0, 0], 10), "          ");
        assert_eq!(drawn([u64::MAX / 2, u64::MAX / 2, 0, 0], 4), "##--");
    }

    #[test]
    fn what_is_there_at_all_is_seen_and_the_width_is_kept() {
        assert_eq!(drawn([1_000_000, 1, 1, 1], 10), "#######-~x");
        assert_eq!(drawn([1, 1_000_000, 0, 0], 10), "#---------");
        assert_eq!(drawn([1, 1, 1, 0], 10), "###---~~~~");
    }
}
