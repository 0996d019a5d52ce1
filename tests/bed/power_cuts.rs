//! Real power cuts: a child process writes to a store on a file system of its own, which is shut
//! down without writing anything more at a random moment. It is mounted again, and the store must
//! hold what it promised.
//!
//! What the file system had not been asked to sync is lost as that file system loses it; what the
//! disk below it does with its cache is not part of it. For what else could happen to unsynced
//! writes there is the simulated disk, in `crash.rs`.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Rng, seed};
use crate::layer::{Layer, skip};
use crate::mount::{self, Image, Kind, Mount, SmallDisk};
use crate::scripted::{Ledger, Said, Script, Writer};

const NAME: &str = "real power cuts";

const KINDS: [Kind; 4] = [
    mount::EXT4,
    mount::XFS,
    mount::EXT4_WRITEBACK,
    mount::EXT4_NODELALLOC,
];

/// How often a file system is cut before a new one is made.
const CUTS_OF_ONE: u64 = 10;

#[test]
fn what_was_durable_survives_power_cuts_of_real_file_systems() {
    let mut rng = Rng(seed(31));
    // The images are in memory: no time goes into a disk, and a sync is as short as it can be.
    let disk = match SmallDisk::mount("size=1g") {
        Ok(disk) => disk,
        Err(why) => return skip(NAME, &why),
    };
    let mut kinds = Vec::new();
    for kind in KINDS {
        match can_be_cut(&disk, kind) {
            Ok(()) => kinds.push(kind),
            Err(why) => skip(&format!("{NAME} of {}", kind.name), &why),
        }
    }
    if kinds.is_empty() {
        return;
    }
    let layer = Layer::begin(NAME, "cuts", 60);
    let mut figures = Figures::default();
    let mut turns = kinds.iter().cycle();
    while !layer.is_done() {
        let kind = *turns.next().unwrap();
        cut_again_and_again(&layer, &disk, kind, &mut rng, &mut figures);
    }
    let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    let Figures { writes, lost, torn } = figures;
    layer.end(&format!(
        "{writes} writes survived, {lost} that were not yet durable did not, {torn} torn tails, \
         on {}",
        names.join(", ")
    ));
}

#[derive(Default)]
struct Figures {
    writes: u64,
    lost: u64,
    torn: u64,
}

/// Why this kind of file system cannot be made, mounted and cut here, if so.
fn can_be_cut(disk: &SmallDisk, kind: Kind) -> Result<(), String> {
    let image = Image::make(&disk.path("probe"), kind, kind.smallest_mib)?;
    let at = disk.path("mounted");
    fs::create_dir_all(&at).unwrap();
    let mounted = Mount::image(&image, &at)?;
    mounted.cut_power();
    mounted.unmount();
    fs::remove_file(&image.path).unwrap();
    Ok(())
}

/// Makes a file system, and cuts it off while a store is written to in it, and again while that is
/// gone on with.
fn cut_again_and_again(
    layer: &Layer,
    disk: &SmallDisk,
    kind: Kind,
    rng: &mut Rng,
    figures: &mut Figures,
) {
    let image = Image::make(&disk.path("image"), kind, kind.smallest_mib).unwrap();
    let at = disk.path("mounted");
    let mut ledger = Ledger::default();
    let mut mounted = Mount::image(&image, &at).unwrap();
    for cut in 0..CUTS_OF_ONE {
        if layer.is_done() {
            break;
        }
        let seed = rng.next();
        let mut rng = Rng(seed);
        let script = Script::random(&at, &mut rng);
        let context = || format!("cut {} of {}: {script:?}", cut + 1, kind.name);
        let mut writer = Writer::start(&script);
        // While it opens the store, or at some moment after.
        let lines = if rng.chance(25) { 0 } else { rng.below(200) };
        let is_stirred = rng.chance(40);
        let then = Duration::from_micros(rng.below(4000));
        let heard = stirred(&script.data(), is_stirred, rng.next(), || {
            let is_writing = writer.hear(lines);
            thread::sleep(then);
            assert!(is_writing, "the child ended\n{}", context());
            let heard = writer.said();
            let failed = &heard.failed;
            assert!(failed.is_none(), "{failed:?} before the cut\n{}", context());
            mounted.cut_power();
            heard
        });
        if rng.chance(50) {
            writer.hear(u64::MAX);
        }
        let said = writer.kill();
        // A machine without power says nothing more. This one does, and its kernel may tell a
        // sync that the cut runs into that all is well: ext4 and XFS do so, now and then.
        let said = Said {
            wrote: said.wrote,
            ..heard
        };
        mounted.unmount();
        mounted = Mount::image(&image, &at).unwrap();

        let before = ledger.done;
        figures.torn += u64::from(ledger.check(&script, &said, &context));
        figures.writes += ledger.done.iter().sum::<u64>() - before.iter().sum::<u64>();
        let wrote = said.wrote.iter().zip(&ledger.done);
        let lost = wrote.map(|(wrote, done)| wrote.saturating_sub(*done));
        figures.lost += lost.sum::<u64>();
        // What the parent wrote may be all that is cut off next.
        if rng.chance(20) {
            mounted.cut_power();
            mounted.unmount();
            mounted = Mount::image(&image, &at).unwrap();
            ledger.check(&script, &said, &|| format!("{}, twice", context()));
        }
        layer.add(1);
    }
    mounted.unmount();
    fs::remove_file(&image.path).unwrap();
}

/// Does the work while, if so wished, files of the directory are synced at random, so that some
/// of what the store has not synced reaches the disk, in an order that nobody planned.
fn stirred(dir: &Path, is_stirred: bool, seed: u64, work: impl FnOnce() -> Said) -> Said {
    let done = AtomicBool::new(!is_stirred);
    let stir = || {
        let mut rng = Rng(seed);
        while !done.load(Ordering::Relaxed) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            if !paths.is_empty() {
                let path = &paths[rng.below(paths.len() as u64) as usize];
                // It may be gone by now, or the power.
                let _ = File::open(path).and_then(|file| file.sync_all());
            }
            thread::sleep(Duration::from_micros(rng.below(2000)));
        }
    };
    thread::scope(|scope| {
        scope.spawn(stir);
        // Ends the stirring whatever comes of the work.
        let _end = End(&done);
        work()
    })
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
