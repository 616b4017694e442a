//! `bench table`: the tables of `operator/docs/fault-matrix.md`, made from the files beside it. Pure, but for [`run`] and [`files`].

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::figures::{Spread, rule_of_three};
use super::file::{Broken, File, Revision, Run, read};
use super::judge::Judgement;
use super::rows::{LEFT, ROWS, Row, Suite};
use crate::paths::Paths;
use crate::state::write_atomic;

/// The page, from the top of the checkout.
const PAGE: &str = "operator/docs/fault-matrix.md";
/// The files that its tables are made from.
const FILES: &str = "operator/docs/fault-matrix";
const BEGIN: &str = "<!-- figures: made by `cargo lab bench table`, not by hand -->";
const END: &str = "<!-- end of figures -->";
/// Fewer runs than this say little about a p99.
const MANY: usize = 30;

/// What `bench table` takes.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Change nothing; fail when the page is not what the files make.
    #[arg(long)]
    check: bool,
}

/// Makes the page, or looks whether it is made.
pub fn run(options: &Options, paths: &Paths) -> Result<ExitCode> {
    let page = paths.checkout.join(PAGE);
    let before = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let after = weave(&before, &render(&files(&paths.checkout.join(FILES))?))?;
    if before == after {
        println!("{PAGE} is what the files make");
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        eprintln!("{PAGE} is not what the files in {FILES} make: run `cargo lab bench table`");
        return Ok(ExitCode::FAILURE);
    }
    write_atomic(&page, after.as_bytes())?;
    println!("{PAGE} is made anew");
    Ok(ExitCode::SUCCESS)
}

/// Every file of a directory, by name.
fn files(dir: &Path) -> Result<Vec<(String, File)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(file) = read(&path)?
        {
            found.push((name, file));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The page with other figures between the marks.
fn weave(page: &str, figures: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = parts.with_context(|| format!("the page has no `{BEGIN}` with `{END}` after it"))?;
    ensure!(!figures.contains(END), "the figures hold the mark of their own end");
    Ok(format!("{head}{BEGIN}\n\n{figures}\n{END}{tail}"))
}

/// What the page says of the files.
fn render(files: &[(String, File)]) -> String {
    let all: Vec<&File> = files.iter().map(|(_, file)| file).collect();
    let groups: Vec<Group<'_>> = ROWS.iter().map(|row| Group::of(row, &all)).collect();
    let of = |suite: Suite| groups.iter().filter(move |group| group.row.suite == suite);
    let parts = [
        sources(files),
        format!("## Must change the primary\n\n{}", outcomes(of(Suite::Failover))),
        times(of(Suite::Failover)),
        format!("## Must not\n\n{}", benign(of(Suite::Benign))),
        bound(of(Suite::Benign)),
        times(of(Suite::Benign)),
        format!("## Not measured in this lab\n\n{}", left()),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The figures of some rows of one file, for a terminal.
pub fn summary(file: &File, rows: &[&'static Row]) -> String {
    let groups: Vec<Group<'_>> = rows.iter().map(|row| Group::of(row, &[file])).collect();
    let first = match file.header.bench {
        Suite::Failover => outcomes(groups.iter()),
        Suite::Benign => benign(groups.iter()) + "\n" + &bound(groups.iter()),
    };
    format!("{first}\n{}", times(groups.iter()))
}

/// All runs of a row.
struct Group<'a> {
    row: &'static Row,
    runs: Vec<&'a Run>,
    broken: Vec<&'a Broken>,
}

impl<'a> Group<'a> {
    fn of(row: &'static Row, files: &[&'a File]) -> Self {
        let files: Vec<&'a File> = files.iter().copied().filter(|file| file.header.bench == row.suite).collect();
        let runs =
            files.iter().copied().flat_map(|file| file.runs.iter()).filter(|run| run.fault == row.name).collect();
        let broken = files
            .iter()
            .copied()
            .flat_map(|file| file.broken.iter())
            .filter(|broken| broken.fault == row.name)
            .collect();
        Self { row, runs, broken }
    }

    fn sum(&self, of: fn(&Run) -> u64) -> u64 {
        self.runs.iter().map(|run| of(run)).sum()
    }

    /// Changes of primary that the row does not let be. One in a run that was not brought to its end is one all the same.
    fn false_failovers(&self) -> u64 {
        self.sum(|run| run.false_failover) + self.broken.iter().filter_map(|broken| broken.false_failover).sum::<u64>()
    }

    /// What is done, and for how long where that is less than the row has.
    fn what(&self) -> String {
        let (what, hold) = (self.row.what, self.row.hold.as_secs_f64());
        let held = || self.runs.iter().map(|run| run.hold_s).filter(move |held| held + 0.5 < hold);
        match held().min_by(f64::total_cmp) {
            Some(least) => format!("{what} (for {least} s instead of {hold} in {} runs)", held().count()),
            None => what.to_owned(),
        }
    }

    /// Writes of clients of their own; none where nobody was there to write.
    fn direct_writes(&self) -> String {
        let all: Option<u64> = self.runs.iter().filter_map(|run| run.direct_writes).reduce(|a, b| a + b);
        all.map_or_else(|| "-".to_owned(), |writes| writes.to_string())
    }

    /// What is aimed at, and whether it is met.
    fn aims(&self) -> [String; 3] {
        let aim = |aim: Option<f64>| aim.map_or_else(String::new, |aim| aim.to_string());
        let met = if self.runs.is_empty() { "" } else { self.met() };
        [aim(self.row.write_gap_aim), aim(self.row.ack_gap_aim), met.to_owned()]
    }

    fn spread(&self, of: fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| of(run)))
    }

    /// Runs that came out as they must, of all.
    fn well(&self) -> String {
        let well = self.runs.iter().filter(|run| run.judgement == Judgement::AsItMust).count();
        format!("{well} of {}", self.runs.len())
    }

    /// Whether the aims are met; empty without one.
    fn met(&self) -> &'static str {
        let row = self.row;
        let aims =
            [(row.write_gap_aim, self.spread(Run::owed_gap_s)), (row.ack_gap_aim, self.spread(|run| run.ack_gap_s))];
        let is_met = |(aim, spread): &(Option<f64>, Option<Spread>)| {
            aim.is_none_or(|aim| spread.is_some_and(|spread| spread.p99 <= aim))
        };
        if row.write_gap_aim.is_none() && row.ack_gap_aim.is_none() {
            ""
        } else if !aims.iter().all(is_met) {
            "no"
        } else if self.runs.len() < MANY {
            "yes, by few"
        } else {
            "yes"
        }
    }

    /// The first cells of each line.
    fn name(&self) -> [String; 2] {
        [self.row.id.to_owned(), format!("`{}`", self.row.name)]
    }
}

fn sources(files: &[(String, File)]) -> String {
    if files.is_empty() {
        return "No file is there yet, so nothing is measured yet.\n".to_owned();
    }
    let lines = files.iter().map(|(name, file)| {
        let header = &file.header;
        let around = header.versions.iter().filter(|(name, _)| *name != "image");
        let versions: Vec<_> = around.map(|(name, version)| format!("{name} {version}")).collect();
        vec![
            format!("[`{name}`](fault-matrix/{name})"),
            file.runs.len().to_string(),
            revisions(file),
            header.rate.to_string(),
            header.machine.describe(),
            versions.join(", "),
        ]
    });
    table(&["file", "runs", "commit", "samples a second", "machine", "versions"], lines)
}

/// Every commit that runs of a file are of, with its image and how many they are.
fn revisions(file: &File) -> String {
    // Files that name no image with each run have one for all.
    let of_all = file.header.versions.get("image").map_or("", String::as_str);
    let image = |revision: &Revision| match (revision.image.as_str(), of_all) {
        ("", "") => String::new(),
        ("", image) | (image, _) => format!(" in `{image}`"),
    };
    let all = file.revisions();
    let lines = all.iter().map(|(revision, runs)| format!("{runs} of `{}`{}", revision.describe(), image(revision)));
    lines.collect::<Vec<_>>().join(", ")
}

fn outcomes<'a, 'b: 'a>(groups: impl Iterator<Item = &'a Group<'b>>) -> String {
    let lines = groups.map(|group| {
        let measured = if group.runs.is_empty() {
            let mut cells = vec![String::new(); 7];
            cells[0] = NOT_YET.to_owned();
            cells[6] = group.broken.len().to_string();
            cells
        } else {
            vec![
                group.well(),
                group.sum(|run| run.lost).to_string(),
                group.sum(|run| run.doubled).to_string(),
                group.sum(|run| run.stale_answers).to_string(),
                group.direct_writes(),
                group.false_failovers().to_string(),
                group.broken.len().to_string(),
            ]
        };
        let what = [group.what(), group.row.must_in_words().to_owned()];
        group.name().into_iter().chain(what).chain(measured).chain(group.aims()).collect::<Vec<_>>()
    });
    let head = [
        "row",
        "fault",
        "what is done",
        "must come",
        "as it must",
        "lost",
        "doubled",
        "stale answers",
        "direct writes",
        "false failovers",
        "not ended",
        "write gap aim",
        "ack gap aim",
        "met",
    ];
    table(&head, lines)
}

const NOT_YET: &str = "not measured yet";

fn benign<'a, 'b: 'a>(groups: impl Iterator<Item = &'a Group<'b>>) -> String {
    let lines = groups.map(|group| {
        let measured = if group.runs.is_empty() {
            let mut cells = vec![String::new(); 9];
            cells[0] = NOT_YET.to_owned();
            cells[8] = group.broken.len().to_string();
            cells
        } else {
            let (injections, false_ones) = counts(std::iter::once(group));
            vec![
                group.well(),
                injections.to_string(),
                false_ones.to_string(),
                at_most(injections, false_ones),
                group.sum(|run| run.near_misses).to_string(),
                group.sum(|run| run.lost).to_string(),
                group.sum(|run| run.doubled).to_string(),
                group.sum(|run| run.stale_answers).to_string(),
                group.broken.len().to_string(),
            ]
        };
        let what = [group.what(), group.row.must_in_words().to_owned()];
        let [write_gap, _, met] = group.aims();
        group.name().into_iter().chain(what).chain(measured).chain([write_gap, met]).collect::<Vec<_>>()
    });
    let head = [
        "row",
        "fault",
        "what is done",
        "may come",
        "as it must",
        "injections",
        "false failovers",
        "rate at most (95 %)",
        "near misses",
        "lost",
        "doubled",
        "stale answers",
        "not ended",
        "write gap aim",
        "met",
    ];
    table(&head, lines)
}

/// Injections, and changes of primary that they should not have caused.
fn counts<'a, 'b: 'a>(groups: impl Iterator<Item = &'a Group<'b>>) -> (u64, u64) {
    groups.fold((0, 0), |(injections, changes), group| {
        (injections + group.sum(|run| u64::from(run.injections)), changes + group.false_failovers())
    })
}

/// The highest rate that is not refuted; empty when there was one, which is a rate to look at and not a bound.
fn at_most(injections: u64, false_ones: u64) -> String {
    let bound = if false_ones == 0 { rule_of_three(injections) } else { None };
    bound.map_or_else(String::new, |bound| format!("{bound:.4}"))
}

fn bound<'a, 'b: 'a>(groups: impl Iterator<Item = &'a Group<'b>>) -> String {
    let (injections, false_ones) = counts(groups);
    if injections == 0 {
        return String::new();
    }
    let bound = at_most(injections, false_ones);
    let bound =
        if bound.is_empty() { String::new() } else { format!(" At 95 % the rate is not above {bound} (3 / n).") };
    format!("All of these together: {injections} injections, {false_ones} false failovers.{bound}\n")
}

type Figure = (&'static str, fn(&Run) -> Option<f64>);

/// What is timed of a run.
static FIGURES: [Figure; 10] = [
    ("detect", |run| run.detect_s),
    ("promote", |run| run.promote_s),
    ("write gap", |run| run.write_gap_s),
    ("excused", |run| run.excused_s),
    ("ack gap", |run| run.ack_gap_s),
    ("visible gap", |run| run.visible_gap_s),
    ("stale read", |run| run.stale_read_s),
    ("direct read", |run| run.direct_read_s),
    ("direct write", |run| run.direct_write_s),
    ("rebuild", |run| run.rebuild_s),
];

/// Times of the rows that were measured; empty when none was.
fn times<'a, 'b: 'a>(groups: impl Iterator<Item = &'a Group<'b>>) -> String {
    let measured: Vec<_> = groups.filter(|group| !group.runs.is_empty()).collect();
    if measured.is_empty() {
        return String::new();
    }
    let cell = |spread: Option<Spread>| {
        spread
            .map_or("-".to_owned(), |s| format!("{:.2} / {:.2} / {:.2} / {:.2} ({})", s.p50, s.p90, s.p99, s.max, s.n))
    };
    let lines = measured.iter().map(|group| {
        let figures = FIGURES.iter().map(|(_, of)| cell(group.spread(*of)));
        group.name().into_iter().chain(figures).collect::<Vec<_>>()
    });
    let head: Vec<_> = ["row", "fault"].into_iter().chain(FIGURES.iter().map(|(name, _)| *name)).collect();
    format!("Seconds, p50 / p90 / p99 / max (n):\n\n{}", table(&head, lines))
}

fn left() -> String {
    let lines = LEFT.iter().map(|left| vec![left.id.to_owned(), left.what.to_owned(), left.why.to_owned()]);
    table(&["row", "what", "why not"], lines)
}

/// A table of markdown.
fn table(head: &[&str], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for cells in lines {
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::{header, run};
    use super::*;

    fn file(runs: Vec<Run>) -> File {
        File { header: header("c0ffee"), rows: Vec::new(), runs, broken: Vec::new() }
    }

    fn named(runs: Vec<Run>) -> Vec<(String, File)> {
        vec![("kill.json".to_owned(), file(runs))]
    }

    /// The first line of the page about a row.
    fn line(text: &str, name: &str) -> String {
        let mark = format!("| `{name}` |");
        text.lines().find(|line| line.contains(&mark)).unwrap().to_owned()
    }

    #[test]
    fn the_page_is_what_the_files_beside_it_make() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = fs::read_to_string(root.join(PAGE)).unwrap();
        let made = weave(&page, &render(&files(&root.join(FILES)).unwrap())).unwrap();
        assert!(page == made, "{PAGE} is stale: run `cargo lab bench table`");
    }

    #[test]
    fn a_page_that_was_changed_by_hand_or_lacks_a_run_is_stale() {
        let page = format!("# Title\n\n{BEGIN}\n\n{}\n{END}\nfoot\n", render(&named(vec![run("c0ffee", 0, 1.5)])));
        assert_eq!(weave(&page, &render(&named(vec![run("c0ffee", 0, 1.5)]))).unwrap(), page);
        let more = named(vec![run("c0ffee", 0, 1.5), run("c0ffee", 1, 2.5)]);
        assert_ne!(weave(&page, &render(&more)).unwrap(), page);
        let by_hand = page.replace("1.50", "1.40");
        assert_ne!(weave(&by_hand, &render(&named(vec![run("c0ffee", 0, 1.5)]))).unwrap(), by_hand);
        assert!(weave("no marks", "").is_err());
    }

    #[test]
    fn without_a_file_every_row_says_that_it_is_not_measured() {
        let text = render(&[]);
        for row in ROWS {
            assert!(line(&text, row.name).contains(NOT_YET), "{}", row.name);
        }
        assert_eq!(text.matches(NOT_YET).count(), ROWS.len());
        assert!(LEFT.iter().all(|left| text.contains(left.why)));
    }

    #[test]
    fn figures_and_what_they_were_measured_on_are_in_the_page() {
        let text = render(&named((0..4).map(|index| run("c0ffee", index, f64::from(index as u32) + 1.0)).collect()));
        assert!(text.contains("2.00 / 4.00 / 4.00 / 4.00 (4)"), "{text}");
        assert!(text.contains("| - |"), "nothing was measured of a direct read");
        assert!(line(&text, "kill").contains("| 4 of 4 | 0 | 0 | 0 | 0 | 0 | 0 | 3 | 0.5 | no |"), "{text}");
        assert!(line(&text, "freeze").contains(NOT_YET));
        for part in ["`c0ffee`", "2 cores of P, 8 GiB, Linux 6.1", "MySQL 9.7.4", "kill.json", "| 5000 |"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn every_commit_and_image_of_a_file_is_in_the_page() {
        let text = render(&named(vec![run("c0ffee", 0, 1.0), run("0ther", 0, 1.0), run("0ther", 1, 1.0)]));
        assert!(
            text.contains("| 1 of `c0ffee` in `understudy:c0ffee`, 2 of `0ther` in `understudy:0ther` |"),
            "{text}"
        );
    }

    #[test]
    fn an_aim_is_met_by_the_p99_of_both_gaps() {
        let met = |runs: usize, write_gap, ack_gap| {
            let each = |index| Run { ack_gap_s: Some(ack_gap), ..run("c0ffee", index, write_gap) };
            let file = file((0..runs).map(each).collect());
            Group::of(&ROWS[0], &[&file]).met()
        };
        assert_eq!(met(30, 3.0, 0.5), "yes");
        assert_eq!(met(29, 3.0, 0.5), "yes, by few");
        assert_eq!(met(30, 3.1, 0.5), "no");
        assert_eq!(met(30, 3.0, 0.6), "no");
    }

    #[test]
    fn a_gap_in_which_nobody_could_act_is_told_whole_and_owed_without_that_time() {
        let away = Run { fault: "kill-without-api".into(), excused_s: Some(55.0), ..run("c0ffee", 0, 65.0) };
        let text = render(&named(vec![away]));
        assert!(line(&text, "kill-without-api").contains("| 13 | 0.5 | yes, by few |"), "{text}");
        assert!(text.contains("| 65.00 / 65.00 / 65.00 / 65.00 (1) | 55.00 / 55.00 / 55.00 / 55.00 (1) |"), "{text}");
    }

    #[test]
    fn a_fault_that_was_held_for_less_than_its_row_says_is_told_so_and_nothing_is_told_of_a_client_that_was_not_there()
    {
        let held =
            |index, hold_s| Run { fault: "freeze".into(), hold_s, direct_writes: None, ..run("c0ffee", index, 1.0) };
        let text = render(&named(vec![held(0, 25.0), held(1, 60.0), held(2, 25.0)]));
        let line = line(&text, "freeze");
        assert!(line.contains("| mysqld is stopped (for 25 s instead of 60 in 2 runs) |"), "{line}");
        assert!(line.contains("| 3 of 3 | 0 | 0 | 0 | - | 0 | 0 |"), "{line}");
    }

    #[test]
    fn a_primary_that_was_changed_in_a_run_without_an_end_was_changed_all_the_same() {
        let (revision, started_at) = (header("c0ffee").revision, "2026-01-02T03:04:05Z".to_owned());
        let (fault, why) = ("long-ddl".to_owned(), "the load ended".to_owned());
        let broken = Broken { fault: fault.clone(), index: 1, revision, started_at, why, false_failover: Some(1) };
        let run = Run { row: "B5".into(), fault, hold_s: 600.0, ..run("c0ffee", 0, 1.0) };
        let mut file = File { broken: vec![broken], ..file(vec![run]) };
        file.header.bench = Suite::Benign;
        let text = render(&[("benign.json".to_owned(), file)]);
        assert!(text.contains("1 injections, 1 false failovers.\n"), "{text}");
        assert!(line(&text, "long-ddl").contains("| 1 of 1 | 1 | 1 |  | 0 | 0 | 0 | 0 | 1 |"), "{text}");
    }

    #[test]
    fn benign_runs_bound_the_rate_of_false_failovers_by_their_injections() {
        let stutter = |index, false_failover| Run {
            row: "B8".into(),
            fault: "stutter".into(),
            injections: 100,
            false_failover,
            ..run("c0ffee", index, 1.0)
        };
        let of = |runs| {
            let mut file = file(runs);
            file.header.bench = Suite::Benign;
            render(&[("benign.json".to_owned(), file)])
        };
        let text = of((0..10).map(|index| stutter(index, 0)).collect());
        assert!(text.contains("1000 injections, 0 false failovers. At 95 % the rate is not above 0.0030"), "{text}");
        assert!(line(&text, "stutter").contains("| 10 of 10 | 1000 | 0 | 0.0030 | 0 |"), "{text}");
        let text = of(vec![stutter(0, 1)]);
        assert!(text.contains("100 injections, 1 false failovers.\n"), "{text}");
        assert!(line(&text, "kill").contains(NOT_YET), "a row of the other suite");
    }
}
