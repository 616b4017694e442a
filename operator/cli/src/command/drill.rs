//! `drill`: a rehearsal is shown, or asked for now. I/O.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::json;

use super::{code, now};
use crate::args::{DrillOptions, Output};
use crate::cluster::Cluster;
use crate::objects::{Drill, Kind};
use crate::output;
use crate::view::drill;
use crate::view::progress::Awaited;
use crate::view::text::Extent;
use crate::view::time::point;

/// Shows a drill, or asks for a run of it.
pub async fn drill(cluster: &Cluster, options: &DrillOptions, output: Output) -> Result<ExitCode> {
    let name = options.drill.as_str();
    let object = cluster.get(Kind::Drill, name).await?;
    if !options.now {
        output::show(&drill::screen(object, now()), output, Extent::All)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut awaited = Awaited::after(&Drill::read(&object));
    let began = Instant::now();
    let asked = cluster.merge(Kind::Drill, name, &json!({ "spec": { "requestedAt": moment(now()) } })).await?;
    if !options.wait {
        match output {
            Output::Json => output::json(&asked)?,
            Output::Text => {
                output::say(&format!(
                    "a run of {name} was asked for; `kubectl understudy drill {name}` shows what becomes of it"
                ))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    output::progress(began.elapsed(), &format!("a run of {name} was asked for; it goes on when this command is ended"));
    let tell = |object: &DynamicObject| {
        let drill = Drill::read(object);
        awaited.news(&drill).iter().for_each(|news| output::progress(began.elapsed(), news));
        awaited.outcome(&drill).is_some()
    };
    let object = cluster.follow(Kind::Drill, name, options.timeout, tell).await?;
    let outcome = awaited.outcome(&Drill::read(&object)).context("the run has not ended")?;
    match output {
        Output::Json => output::json(&object)?,
        Output::Text => output::say(&outcome.words)?,
    }
    Ok(code(outcome.is_well))
}

/// As Kubernetes writes times: to the second.
fn moment(at: Timestamp) -> String {
    point(at)
}
