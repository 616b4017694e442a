//! Kafka, as the jars its publisher puts into Maven's central repository.

use std::fs;

use anyhow::{Result, ensure};

use super::{Build, KAFKA};
use crate::run;

/// All jars of the broker and of its tools.
pub fn kafka(build: &Build<'_>) -> Result<()> {
    let dependency = |artifact: &str| {
        format!(
            "<dependency><groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId><version>{KAFKA}</version></dependency>"
        )
    };
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>understudy.lab</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}</dependencies></project>\n",
        dependency("kafka_2.13"),
        dependency("kafka-tools")
    );
    fs::write(build.work.join("pom.xml"), pom)?;
    let libs = build.dir.join("libs");
    let mut command = run::sh("mvn -B dependency:copy-dependencies");
    command.arg(format!("-DoutputDirectory={}", libs.display())).current_dir(build.work);
    let mut jars = 0;
    run::watched(&command, build.log, |line| {
        if line.contains("Copying ") {
            jars += 1;
        }
        build.step.progress(jars, 92, "jars");
    })?;
    ensure!(libs.join(format!("kafka_2.13-{KAFKA}.jar")).is_file(), "maven left no kafka_2.13-{KAFKA}.jar");
    Ok(())
}
