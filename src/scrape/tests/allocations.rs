//! A page that says nothing new must cost no allocation per sample.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;

use super::*;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Takes everything, keeps nothing.
#[derive(Debug)]
struct Void;

impl Storage for Void {
    fn appender(self: Arc<Self>) -> Box<dyn Append> {
        Box::new(VoidBatch(0))
    }
}

struct VoidBatch(u64);

impl Append for VoidBatch {
    fn append(&mut self, known: SeriesRef, _: &Labels, _: TimestampMs, _: f64) -> Result<SeriesRef, Error> {
        self.0 += 1;
        Ok(if known.0 == 0 { SeriesRef(self.0) } else { known })
    }

    fn commit(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_known_page_allocates_nothing_per_sample() {
    let config = Arc::new(job(""));
    let target = target(&config, "host:80");
    let mut ingest = Ingest::new(config, target, Arc::default());
    let storage: Arc<dyn Storage> = Arc::new(Void);
    let mut page = |tick: u64, order: &dyn Fn(u64) -> u64| {
        let mut body = "# HELP m Help.\n# TYPE m counter\n".to_owned();
        for i in 0..2000 {
            let i = order(i);
            writeln!(body, "m{{handler=\"/api/{i}\",code=\"200\"}} {}.5", i * tick).unwrap();
        }
        let fetched = Fetched::Page { body: body.as_bytes(), content_type: "text/plain" };
        let before = ALLOCATIONS.get();
        let t = 1000 * i64::try_from(tick).unwrap();
        let counts = ingest.store(&storage, fetched, t, || std::time::Duration::ZERO).unwrap();
        (counts, ALLOCATIONS.get() - before)
    };
    let (counts, first) = page(1, &|i| i);
    assert_eq!(counts.series_added, 2000);
    assert!(first > 2000);
    let (counts, second) = page(2, &|i| i);
    assert_eq!((counts.kept, counts.series_added), (2000, 0));
    assert!(second < 10, "{second} allocations");
    // Nor when the order is another.
    let (_, shuffled) = page(3, &|i| (i * 7 + 3) % 2000);
    assert!(shuffled < 10, "{shuffled} allocations");
}
