-- OOM events of a fleet in ClickHouse (run with 18.16 and 26.9). docs/fleet.md says how they come here.
CREATE DATABASE IF NOT EXISTS oom;

-- One row for each event. Repeated deliveries have the same id. Of two rows of one event the one with more kills
-- stays, because a group kill is sent again when it has grown. Read with FINAL, or rows of repeated deliveries are
-- counted twice until they are merged.
CREATE TABLE IF NOT EXISTS oom.events
(
    event_id String,
    time DateTime,
    host String,
    pool String,
    kind String,
    severity String,
    oom_constraint String,
    namespace String,
    pod String,
    container String,
    unit String,
    cgroup String,
    victim_comm String,
    victim_pid UInt32,
    kills UInt32,
    repeats UInt32,
    reason String,
    findings String,
    summary String
)
ENGINE = ReplacingMergeTree(kills)
PARTITION BY toYYYYMM(time)
ORDER BY (toDate(time), event_id);

-- What a kernel does not know: which image a container runs. From kube-state-metrics (kube_pod_container_info),
-- or whatever deploys.
CREATE TABLE IF NOT EXISTS oom.images
(
    namespace String,
    container String,
    image String
)
ENGINE = ReplacingMergeTree
ORDER BY (namespace, container);
