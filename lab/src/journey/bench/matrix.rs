//! `bench failover` and `bench benign`: rows of the matrix, many times, each run written down as soon as it has ended. I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::super::access::Access;
use super::super::store::Store;
use super::deployed;
use super::file::{self, Broken, File, Header, Run};
use super::judge::Judgement;
use super::machine;
use super::prepare::{self, InARow};
use super::rows::{Row, Suite, select};
use super::run::Ground;
use super::strike::heal;
use super::table::summary;
use crate::cli::parse_time;
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::Ui;
use crate::state;

/// Runs that may fail to come to their end one after the other, before the bench gives up.
const BROKEN_IN_A_ROW: usize = 3;

/// How often what is left is gone through: a run that something cut short is made once more, after all others.
const PASSES: usize = 2;
/// Volumes that are fuller than this, in parts of all, leave no room for the faults that fill one.
const FULL: f64 = 0.75;

/// How often, under which load, on which Datastore.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// How often each.
    #[arg(long)]
    runs: Option<usize>,
    /// Samples per second.
    #[arg(long, default_value = "5000")]
    rate: u64,
    /// Hold no fault longer than this: 30s, 5m. Without it each is held as long as its row says.
    #[arg(long, value_parser = parse_time)]
    hold: Option<Duration>,
    /// Namespace of the Datastore.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Its name.
    #[arg(long, default_value = "metrics")]
    datastore: String,
}

/// What `bench failover` and `bench benign` take.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Rows by name or number, with commas between them; `main` is the six main ones, `all` is all of them. They take turns.
    #[arg(long, required = true, value_delimiter = ',')]
    fault: Vec<String>,
    #[command(flatten)]
    how: How,
    /// Where to write what was measured. A file that is there is gone on with.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Add to a file whose runs are of another commit or image.
    #[arg(long)]
    append: bool,
}

/// Runs rows of a suite.
pub fn run(suite: Suite, options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let rows = select(suite, &options.fault)?;
    let bench =
        Bench { suite, rows, runs: options.how.runs.unwrap_or(30), out: options.out.clone(), append: options.append };
    bench.run(&options.how, paths, ui)
}

/// Runs one row into a file of its own under `.lab/bench`.
pub fn one(name: &str, runs: usize, how: &How, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let rows = select(Suite::Failover, &[name.to_owned()])?;
    let started = machine::now()?.replace(':', "");
    let out = paths.dot_lab().join("bench").join(format!("{name}-{started}.json"));
    ui.say(&format!("the figures go to {}", out.display()));
    let bench = Bench { suite: Suite::Failover, rows, runs: how.runs.unwrap_or(runs), out, append: false };
    bench.run(how, paths, ui)
}

struct Bench {
    suite: Suite,
    rows: Vec<&'static Row>,
    runs: usize,
    out: PathBuf,
    append: bool,
}

impl Bench {
    fn run(&self, how: &How, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
        let access = Access::lab(paths);
        let store = Store { access: &access, namespace: how.namespace.clone(), name: how.datastore.clone() };
        let token = store.known_token()?.context("there is no Datastore of the lab: run `cargo lab demo` first")?;
        let image = product::image_name(paths, ui, Profile::Release)?;
        deployed::ensure_is(&store, &image)?;
        let header = Header::here(paths, self.suite, how.rate, image)?;
        let there = file::read(&self.out)?;
        let mut file = file::resume(there, header, self.append)
            .with_context(|| format!("{} is not gone on with", self.out.display()))?;
        file.describe(&self.rows);
        let left = file.left(&self.rows, self.runs);
        ui.say(&format!("{} runs of {} are left", left.len(), self.runs * self.rows.len()));
        let program = product::build_load(paths, ui, Profile::Release)?;
        // A bench that was cut short may have left its fault in force.
        heal(paths)?;
        let _in_a_row = InARow::begin(&store)?;
        let dir = self.ledgers(paths, &file.header);
        let ground = Ground {
            paths,
            ui,
            store: &store,
            program: &program,
            token: &token,
            rate: how.rate,
            hold: how.hold,
            dir: &dir,
        };
        // Those of broken runs are asked for anew.
        let mut calm = ground.epochs()?;
        for _ in 0..PASSES {
            let left = file.left(&self.rows, self.runs);
            self.all(&left, &ground, &mut file, &mut calm)?;
        }
        println!("{}", summary(&file, &self.rows));
        let is_well = file.left(&self.rows, self.runs).is_empty()
            && self.own(&file).all(|run| run.judgement == Judgement::AsItMust);
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Ledgers of one checkout do not overwrite those of another.
    fn ledgers(&self, paths: &Paths, header: &Header) -> PathBuf {
        let name = self.out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let revision = header.revision.describe().replace(' ', "-");
        paths.dot_lab().join("bench").join(format!("{name}-{revision}"))
    }

    /// The runs of these rows and this revision.
    fn own<'a>(&'a self, file: &'a File) -> impl Iterator<Item = &'a Run> {
        let header = &file.header;
        let is_own =
            move |run: &&Run| run.revision == header.revision && self.rows.iter().any(|row| row.name == run.fault);
        file.runs.iter().filter(is_own)
    }

    /// Makes these runs. `calm` has the epochs at the end of the run before each.
    fn all(
        &self,
        left: &[(&'static Row, usize)],
        ground: &Ground<'_>,
        file: &mut File,
        calm: &mut BTreeMap<String, i64>,
    ) -> Result<()> {
        let mut broken = 0;
        for (number, (row, index)) in left.iter().enumerate() {
            make_room(ground)?;
            let (id, name, all) = (row.id, row.name, left.len());
            ground.ui.say(&format!("{id} {name}: {}; run {} ({} of {all})", row.what, index + 1, number + 1));
            let started_at = machine::now()?;
            let header = file.header.clone();
            let result = ground.run(row, *index, &header, calm);
            let stop = match result {
                Ok(run) => {
                    broken = 0;
                    ground.ui.say(&format!("  {}", line(&run)));
                    let is_exact = run.judgement != Judgement::Inexact;
                    if run.judgement == Judgement::AsItMust {
                        ground.forget(row, *index);
                    }
                    calm.clone_from(&run.epochs_after);
                    file.runs.push(run);
                    (!is_exact).then(|| {
                        let ledger = ground.dir.display();
                        format!("{name}: samples were lost, doubled or made up, or none was acknowledged. Everything stays as it is; the ledger is in {ledger}")
                    })
                }
                Err(error) => {
                    broken += 1;
                    let why = format!("{error:#}");
                    ground.ui.say(&format!("  not brought to its end: {why}"));
                    let healed = heal(ground.paths);
                    file.broken.push(Broken {
                        fault: name.to_owned(),
                        index: *index,
                        revision: header.revision.clone(),
                        started_at,
                        why: why.clone(),
                        false_failover: ground.false_failovers(row, calm).ok(),
                    });
                    state::write_json(&self.out, &*file)?;
                    healed?;
                    *calm = ground.epochs()?;
                    (broken >= BROKEN_IN_A_ROW)
                        .then(|| format!("{broken} runs in a row were not brought to their end; the last: {why}"))
                }
            };
            state::write_json(&self.out, &*file)?;
            if let Some(why) = stop {
                bail!(why);
            }
        }
        Ok(())
    }
}

/// Refuses to go on over volumes that are full of what earlier runs sent.
fn make_room(ground: &Ground<'_>) -> Result<()> {
    let (full, name) = (prepare::fullness(ground.paths)?, &ground.store.name);
    ensure!(
        full < FULL,
        "the volumes are {:.0} % full of what earlier runs sent: make the Datastore anew (`kubectl delete datastore {name}`, \
         `cargo lab demo`), then start this again, and it goes on where it is",
        full * 100.0
    );
    Ok(())
}

/// What a run comes to, in a line.
fn line(run: &Run) -> String {
    let figure =
        |name: &str, value: Option<f64>| format!("{name} {}", value.map_or("-".into(), |v| format!("{v:.2} s")));
    let figures = [
        figure("detected", run.detect_s),
        figure("write gap", run.write_gap_s),
        figure("ack gap", run.ack_gap_s),
        figure("visible gap", run.visible_gap_s),
        figure("whole", run.rebuild_s),
    ];
    let judgement = match run.judgement {
        Judgement::AsItMust => "as it must be".to_owned(),
        other => format!("{other:?}"),
    };
    format!(
        "{judgement}: {}; {} of {}; acknowledged {}, lost {}, doubled {}, stale {}",
        figures.join(", "),
        run.verdict,
        run.subject,
        run.acked,
        run.lost,
        run.doubled,
        run.stale_answers
    )
}
