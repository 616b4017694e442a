//! Kafka, as the jars its publisher puts into Maven's central repository.

use std::fs;

use anyhow::{Result, ensure};

use super::{Build, KAFKA};
use crate::run;

/// The version of log4j that this Kafka depends on.
const LOG4J: &str = "2.24.3";

/// All jars of the broker and of its tools.
pub fn kafka(build: &Build<'_>) -> Result<()> {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>understudy.lab</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", KAFKA),
        dependency("org.apache.kafka", "kafka-tools", KAFKA),
        // What the distribution adds so that the broker's log is written at all.
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J)
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
        build.step.progress(jars, 93, "jars");
    })?;
    ensure!(libs.join(format!("kafka_2.13-{KAFKA}.jar")).is_file(), "maven left no kafka_2.13-{KAFKA}.jar");
    Ok(())
}
