//! `Info`: adds the data labels of info series to the series that they are about.
//!
//! Inputs: the vector, and the info series with the times of their samples (seconds) as values. Series
//! belong together when their identifying labels are equal. All is decided step by step.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/info.go>
//! (`combineWithInfoSeries`). Difference: of info metrics that disagree, the first by name is told first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use datafusion::error::DataFusionError;
use promontory_tsdb::Matcher;
use promontory_tsdb::labels::{METRIC_NAME, put_pair};

use super::key::{NAME_DROPPED, compare, get, labels, pairs, unmarked};
use super::rows::{Merger, Row, TileWriter, same_labelset};
use super::{Evaluate, Scope};
use crate::context::Pace;
use crate::error::QueryError;

/// Labels by which a series and its info series belong together.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Adds labels of info series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Info {
    /// What the names of info metrics match. Series of the vector whose name matches pass as they are.
    pub names: Vec<Matcher>,
    /// What their other labels match; if there are any, only these labels are added.
    pub data: Vec<Matcher>,
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data: Vec<_> = self.data.iter().chain(&self.names).map(ToString::to_string).collect();
        write!(f, "{{{}}}", data.join(","))
    }
}

impl Evaluate for Info {
    fn name(&self) -> &'static str {
        "Info"
    }

    fn vector_inputs(&self) -> usize {
        2
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let base = &vectors[0];
        let wanted = Wanted::new(base.iter().filter(|row| !self.is_info(row.key)));
        let mut infos: Vec<&Row<'_>> = vectors[1].iter().filter(|row| wanted.has(row.key)).collect();
        if let Some(row) = infos.iter().find(|row| row.any() != row.mask) {
            let text = format!("this should be an info metric, with float samples: {}", labels(row.key));
            return Err(QueryError::Execution(text).into());
        }
        infos.sort_by(|a, b| a.tile.cmp(&b.tile).then_with(|| compare(a.key, b.key)));
        let mut order: Vec<&Row<'_>> = base.iter().collect();
        order.sort_by_key(|row| row.tile);
        let mut merger = Merger::new(out.width(), scope.context);
        let mut pace = Pace::new(scope.context);
        for rows in order.chunk_by(|a, b| a.tile == b.tile) {
            let tile = rows[0].tile;
            let from = infos.partition_point(|row| row.tile < tile);
            let to = infos.partition_point(|row| row.tile <= tile);
            Tile::new(self, rows, &infos[from..to]).run(&mut pace, &mut merger)?;
        }
        merger.write(out)?;
        Ok(())
    }
}

impl Info {
    /// Whether a series of the vector is itself one that tells about others.
    fn is_info(&self, key: &[u8]) -> bool {
        let name = text(key, METRIC_NAME);
        self.names.iter().all(|m| m.matches(name))
    }

    /// Whether label `name` is to be added.
    fn adds(&self, name: &[u8]) -> bool {
        name != METRIC_NAME.as_bytes()
            && (self.data.is_empty() || self.data.iter().any(|m| m.name().as_bytes() == name))
    }
}

fn text<'a>(key: &'a [u8], label: &str) -> &'a str {
    get(key, label).and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default()
}

/// Values of identifying labels that occur in the vector.
struct Wanted<'a>([HashSet<&'a str>; 2]);

impl<'a> Wanted<'a> {
    fn new<'r>(rows: impl Iterator<Item = &'r Row<'a>>) -> Self
    where
        'a: 'r,
    {
        let mut values = [HashSet::new(), HashSet::new()];
        for row in rows {
            for (label, values) in IDENTIFYING.iter().zip(&mut values) {
                let value = text(row.key, label);
                if !value.is_empty() {
                    values.insert(value);
                }
            }
        }
        Self(values)
    }

    /// Whether an info series may be about a series of the vector.
    fn has(&self, key: &[u8]) -> bool {
        let mut wanted = IDENTIFYING.iter().zip(&self.0).filter(|(_, values)| !values.is_empty()).peekable();
        wanted.peek().is_some() && wanted.all(|(label, values)| values.contains(text(key, label)))
    }
}

/// The rows of one tile.
struct Tile<'a, 'b> {
    info: &'b Info,
    base: &'b [&'b Row<'a>],
    infos: &'b [&'b Row<'a>],
    /// Which slot of [`Tile::newest`] belongs to each info row.
    slots: Vec<usize>,
    /// Slots of info series that each base row may take labels of, by metric name; `None` for rows that
    /// pass as they are.
    candidates: Vec<Option<Vec<usize>>>,
    /// By slot: the info row whose sample is the newest one at the step at hand.
    newest: Vec<Option<usize>>,
}

/// Metric name and identifying labels.
type Identity<'a> = (&'a str, [&'a str; 2]);

fn identity<'a>(name: &'a str, key: &'a [u8]) -> Identity<'a> {
    (name, IDENTIFYING.map(|label| text(key, label)))
}

/// A new key (none if the row goes), and the lanes that have it.
type Enriched = (Option<Vec<u8>>, u128);

impl<'a, 'b> Tile<'a, 'b> {
    fn new(info: &'b Info, base: &'b [&'b Row<'a>], infos: &'b [&'b Row<'a>]) -> Self {
        let mut known: BTreeMap<Identity<'_>, usize> = BTreeMap::new();
        let mut slots = Vec::with_capacity(infos.len());
        let mut names: Vec<&str> = Vec::new();
        for row in infos {
            let name = text(row.key, METRIC_NAME);
            let next = known.len();
            slots.push(*known.entry(identity(name, row.key)).or_insert(next));
            names.push(name);
        }
        names.sort_unstable();
        names.dedup();
        let candidates = base
            .iter()
            .map(|row| {
                let slots = names.iter().filter_map(|name| known.get(&identity(name, row.key)).copied());
                (!info.is_info(row.key)).then(|| slots.collect())
            })
            .collect();
        let newest = vec![None; known.len()];
        Self { info, base, infos, slots, candidates, newest }
    }

    fn run(mut self, pace: &mut Pace<'_>, merger: &mut Merger<'_>) -> Result<(), QueryError> {
        let any = self.base.iter().fold(0, |any, row| any | row.any());
        // Per base row and info rows: the new key (none if the row goes), and at which steps it has it.
        let mut made: HashMap<(usize, Vec<usize>), Enriched> = HashMap::new();
        for lane in super::rows::lanes(any) {
            pace.step(self.infos.len() + self.base.len())?;
            self.find_newest(lane)?;
            for (i, row) in self.base.iter().enumerate().filter(|(_, row)| row.any() >> lane & 1 == 1) {
                let found: Vec<usize> = match &self.candidates[i] {
                    Some(slots) => slots.iter().filter_map(|slot| self.newest[*slot]).collect(),
                    None => Vec::new(),
                };
                let lanes = match made.entry((i, found)) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(slot) => {
                        let passes = self.candidates[i].is_none();
                        let key =
                            if passes { Some(row.key.to_vec()) } else { self.key(row.key, &slot.key().1)? };
                        slot.insert((key, 0))
                    }
                };
                lanes.1 |= 1 << lane;
            }
        }
        for ((i, _), (key, mask)) in made {
            let (Some(key), row) = (key, self.base[i]) else { continue };
            merger.fits()?;
            if merger.add_row(row, &key, mask) != 0 {
                return Err(same_labelset());
            }
        }
        Ok(())
    }

    /// Finds the newest info sample of each identity at a step. Two of the same age are an error.
    fn find_newest(&mut self, lane: usize) -> Result<(), QueryError> {
        self.newest.fill(None);
        for (i, row) in self.infos.iter().enumerate().filter(|(_, row)| row.mask >> lane & 1 == 1) {
            let newest = &mut self.newest[self.slots[i]];
            let Some(other) = *newest else {
                *newest = Some(i);
                continue;
            };
            let (t, old) = (row.values[lane], self.infos[other].values[lane]);
            if t == old {
                let ms = |seconds: f64| (seconds * 1000.0).round() as i64;
                return Err(QueryError::Execution(format!(
                    "found duplicate series for info metric: existing {} @ {}, new {} @ {}",
                    labels(self.infos[other].key),
                    ms(old),
                    labels(row.key),
                    ms(t)
                )));
            }
            if t > old {
                *newest = Some(i);
            }
        }
        Ok(())
    }

    /// The key with the labels of the info rows; `None` if a label was asked for and there is no info row.
    fn key(&self, key: &[u8], found: &[usize]) -> Result<Option<Vec<u8>>, QueryError> {
        if found.is_empty() && self.info.data.iter().any(|m| !m.matches("")) {
            return Ok(None);
        }
        let mut added: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for row in found.iter().map(|i| self.infos[*i]) {
            for (name, value, _) in pairs(row.key).filter(|(name, ..)| self.info.adds(name)) {
                if added.get(name).is_some_and(|other| *other != value) {
                    let name = String::from_utf8_lossy(name);
                    return Err(QueryError::Execution(format!("conflicting label: {name}")));
                }
                if !pairs(key).any(|(own, ..)| own == name) {
                    added.insert(name, value);
                }
            }
        }
        let mut builder = labels(key).to_builder();
        for (name, value) in added {
            builder.set(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
        }
        let mut new = builder.build().as_bytes().to_vec();
        if unmarked(key).len() < key.len() {
            put_pair(&mut new, NAME_DROPPED, "1");
        }
        Ok(Some(new))
    }
}
