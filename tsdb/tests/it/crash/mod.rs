//! A crash at any step loses nothing that was acknowledged and invents nothing.
//!
//! Every change of the disk is recorded while a script runs. Then the directory is put back as a crash
//! at this or that step would have left it, opened, compared with what was acknowledged, and used further.
//!
//! `CRASH_SEED` draws another script and other points, `CRASH_POINTS` says how many points (200), `CRASH_AT`
//! replays one of them. `CRASH_BYTES` says at how many bytes of the last two pages of the log it is cut (100).

mod faults;
mod history;
mod killed;
mod peers;
mod script;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use promontory_tsdb::fs::{Cut, Image, Journal, Step};
use promontory_tsdb::{Db, Labels, Queryable as _, SeriesRef};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{differences, read_everything, setting, temporary};
use history::{Found, History, Moment, Verdict};
use script::{World, options, options_with};

/// What a step is about, so that every kind gets its crashes.
fn kind(step: &Step) -> String {
    let what = |path: &Path| {
        let text = path.to_string_lossy();
        let known = ["wal/checkpoint", "wal", "wbl", "chunks_head", "chunk_snapshot", "lock"];
        match known.iter().find(|k| text.starts_with(**k)) {
            Some(known) => (*known).to_owned(),
            None => {
                let state = ["tmp-for-creation", "tmp-for-deletion"].into_iter().find(|s| text.contains(s));
                let file =
                    ["index", "chunks", "meta.json", "tombstones"].into_iter().find(|f| text.contains(f));
                format!("block {} {}", state.unwrap_or_default(), file.unwrap_or_default())
            }
        }
    };
    match step {
        Step::CreateFile { path } => format!("create {}", what(path)),
        Step::Write { path, .. } => format!("write {}", what(path)),
        Step::SetLen { path, .. } => format!("cut {}", what(path)),
        Step::SyncFile { path } => format!("sync {}", what(path)),
        Step::SyncDir { path } => format!("sync dir {}", what(path)),
        Step::Rename { to, .. } => format!("rename {}", what(to)),
        Step::Link { to, .. } => format!("link {}", what(to)),
        Step::RemoveFile { path } => format!("remove {}", what(path)),
        Step::RemoveDir { path } => format!("remove dir {}", what(path)),
        Step::MakeDir { path } => format!("make dir {}", what(path)),
    }
}

/// A crash: before this step, or in it if it is a write that was torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    steps: usize,
    torn: Option<usize>,
    power_cut: Option<u64>,
}

/// Points over the whole journal: one of each kind of step, the rest anywhere.
fn points(journal: &[Arc<Step>], rng: &mut StdRng, count: usize) -> Vec<Point> {
    let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, step) in journal.iter().enumerate() {
        kinds.entry(kind(step)).or_default().push(i);
    }
    println!(
        "{}",
        kinds.iter().map(|(kind, of)| format!("{} × {kind}", of.len())).collect::<Vec<_>>().join(", ")
    );
    let each = (count / 3).div_ceil(kinds.len()).max(1);
    let mut steps: Vec<usize> = Vec::new();
    for of_kind in kinds.values() {
        steps.extend((0..each).map(|_| of_kind[rng.random_range(0..of_kind.len())]));
    }
    while steps.len() < count {
        steps.push(rng.random_range(0..=journal.len()));
    }
    let mut points: Vec<_> = steps
        .into_iter()
        .map(|steps| {
            let torn = match journal.get(steps).map(|s| &**s) {
                Some(Step::Write { bytes, .. }) if rng.random() => Some(rng.random_range(0..=bytes.len())),
                _ => None,
            };
            Point { steps, torn, power_cut: rng.random::<bool>().then(|| rng.random()) }
        })
        .collect();
    points.sort_unstable();
    points
}

/// What is on disk after a crash.
struct Rewind<'a> {
    journal: &'a [Arc<Step>],
    image: Image,
    steps: usize,
}

impl<'a> Rewind<'a> {
    fn new(start: Image, journal: &'a [Arc<Step>]) -> Self {
        Self { journal, image: start, steps: 0 }
    }

    /// Puts the directory as it was at `point` into `into`; points must come in order.
    fn materialise(&mut self, point: Point, into: &Path) {
        for step in &self.journal[self.steps..point.steps] {
            self.image.apply(step, usize::MAX).unwrap();
        }
        self.steps = point.steps;
        let cut = point.power_cut.map_or(Cut::Killed, |seed| Cut::Power { seed });
        match point.torn {
            None => self.image.write(cut, into).unwrap(),
            Some(bytes) => {
                let mut torn = self.image.clone();
                torn.apply(&self.journal[point.steps], bytes).unwrap();
                torn.write(cut, into).unwrap();
            }
        }
    }
}

impl Point {
    fn moment(self, journal: &[Arc<Step>], history: &History) -> Moment {
        match self.power_cut {
            None => Moment::killed(self.steps),
            Some(_) => Moment::power_cut(self.steps, journal, history),
        }
    }
}

/// Opens what a crash left, compares, goes on with it, and opens it once more.
fn survive(dir: &Path, history: &History, at: Moment, then: Then) -> Verdict {
    let Then { maintain, snapshots } = then;
    let db = Db::open(options_with(dir, snapshots.0)).unwrap();
    let found = Found::in_db(&db);
    let verdict = history.check(at, &found);
    let mut expected = found.samples;
    let labels = Labels::from_pairs([("__name__", "after")]);
    let from = db.time_bounds().map_or(0, |(_, maxt)| maxt) + 1;
    for t in from..from + 3 {
        let mut appender = db.appender();
        appender.append(SeriesRef(0), &labels, t, t as f64).unwrap();
        appender.commit().unwrap();
        expected.entry(labels.clone()).or_default().push((t, (t as f64).to_bits()));
    }
    if maintain {
        db.maintain().unwrap();
    }
    let now = read_everything(&*db);
    assert!(now == expected, "wrong after going on; expected is left:{}", differences(&expected, &now));
    db.close().unwrap();
    drop(db);
    let db = Db::open(options_with(dir, snapshots.1)).unwrap();
    let mut again = Found::in_db(&db);
    let differ = || differences(&expected, &again.samples);
    assert!(again.samples == expected, "wrong after another restart; expected is left:{}", differ());
    again.samples.remove(&labels);
    let again = history.check(at, &again);
    assert!(again.notes.1 + again.notes.2 == 0 || !verdict.is_good(), "after another restart: {again:?}");
    verdict
}

/// What happens to what a crash left.
#[derive(Debug, Clone, Copy)]
struct Then {
    maintain: bool,
    /// Whether the first start, with the stop after it, and the second use snapshots of the head.
    snapshots: (bool, bool),
}

impl Then {
    fn draw(rng: &mut StdRng) -> Self {
        Self { maintain: rng.random_ratio(1, 4), snapshots: (rng.random(), rng.random()) }
    }
}

/// A crash while what an earlier crash left is being opened.
fn crash_again(dir: &Path, history: &History, at: Moment, rng: &mut StdRng) -> Verdict {
    let then = Then::draw(rng);
    let journal = Journal::record(dir).unwrap();
    drop(Db::open(options_with(dir, rng.random())).unwrap());
    let steps = journal.steps();
    let point = Point { steps: rng.random_range(0..=steps.len()), torn: None, power_cut: None };
    let again = temporary();
    Rewind::new(journal.start(), &steps).materialise(point, again.path());
    survive(again.path(), history, at, Then { maintain: true, ..then })
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let seed = setting("CRASH_SEED", 1);
    let count = setting("CRASH_POINTS", 200) as usize;
    let only = std::env::var("CRASH_AT").ok();
    let dir = temporary();
    let mut world = World::new(dir.path(), seed);
    world.run(450);
    world.verify();
    let journal = world.journal.steps();
    let mut rng = StdRng::seed_from_u64(seed);
    let points = points(&journal, &mut rng, count);
    println!(
        "seed {seed}: {:?}, {} samples, {} steps",
        world.done,
        world.history.acknowledged(),
        journal.len()
    );
    let mut rewind = Rewind::new(world.journal.start(), &journal);
    let promtool = crate::peer::installed(&crate::peer::promtool());
    let server = crate::peer::installed(&crate::peer::peer());
    let mut served = 0;
    let (mut checked, mut expected, mut notes, mut dumped, mut bad) = (0, 0, 0, 0, Vec::new());
    for (i, point) in points.into_iter().enumerate() {
        let (then, again) = (Then::draw(&mut rng), rng.random_ratio(1, 8));
        let again_seed = rng.random();
        if only.as_ref().is_some_and(|only| *only != i.to_string()) {
            continue;
        }
        let image = temporary();
        rewind.materialise(point, image.path());
        let at = point.moment(&journal, &world.history);
        let step = journal.get(point.steps).map_or("the end".to_owned(), ToString::to_string);
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if promtool && i % (count / 20).max(1) == 0 {
                let copy = temporary();
                rewind.materialise(point, copy.path());
                dumped += usize::from(peers::promtool_agrees(copy.path(), &world.history));
            }
            if server && i % (count / 10).max(1) == 5 {
                let (theirs, ours) = (temporary(), temporary());
                rewind.materialise(point, theirs.path());
                rewind.materialise(point, ours.path());
                served += peers::server_agrees(theirs.path(), ours.path(), &world.history);
            }
            if again {
                crash_again(image.path(), &world.history, at, &mut StdRng::seed_from_u64(again_seed))
            } else {
                survive(image.path(), &world.history, at, then)
            }
        }));
        checked += 1;
        match attempt {
            Ok(verdict) if verdict.is_good() => {
                expected += verdict.expected;
                notes += verdict.notes.0;
            }
            Ok(verdict) => bad.push(format!("CRASH_AT={i} before {step} ({point:?}): {verdict:?}")),
            Err(_) => bad.push(format!("CRASH_AT={i} before {step} ({point:?}): panicked, see above")),
        }
    }
    println!(
        "{checked} points, {expected} samples and {notes} exemplars and metadata compared, {dumped} by promtool too and {served} samples by Prometheus, {} with losses",
        bad.len()
    );
    assert!(bad.is_empty(), "CRASH_SEED={seed} CRASH_POINTS={count}\n{}", bad.join("\n"));
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_pages_keeps_all_before() {
    const LAST: usize = 2 * promontory_tsdb::wal::PAGE_BYTES;
    let dir = temporary();
    let mut world = World::new(dir.path(), setting("CRASH_SEED", 1));
    world.run(300);
    let journal = world.journal.steps();
    // Writes to the log, from the last one back, that make up the last two pages.
    let written = |step: &Step| match step {
        Step::Write { path, bytes, .. } if path.parent() == Some(Path::new("wal")) => bytes.len(),
        _ => 0,
    };
    let mut cuts = Vec::new();
    for (i, step) in journal.iter().enumerate().rev() {
        cuts.extend((0..written(step)).map(|byte| (i, byte)));
        if cuts.len() >= LAST {
            break;
        }
    }
    cuts.sort_unstable();
    let stride = (cuts.len() / setting("CRASH_BYTES", 100).max(1) as usize).max(1);
    let mut rewind = Rewind::new(world.journal.start(), &journal);
    let mut checked = 0;
    for &(steps, byte) in cuts.iter().step_by(stride) {
        let image = temporary();
        rewind.materialise(Point { steps, torn: Some(byte), power_cut: None }, image.path());
        let db = Db::open(options(image.path())).unwrap();
        let verdict = world.history.check(Moment::killed(steps), &Found::in_db(&db));
        assert!(verdict.is_good(), "byte {byte} of {}: {verdict:?}", journal[steps]);
        checked += 1;
    }
    println!("cut at {checked} of {} bytes, no losses", cuts.len());
}
