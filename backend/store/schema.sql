-- The newest schema, version 2. Times are seconds since 1970 in UTC. No foreign key and no secondary
-- index: both forbid later changes of a table in DuckDB, and the scans are fast without them.

CREATE TABLE IF NOT EXISTS meta (
    name VARCHAR PRIMARY KEY,
    value VARCHAR NOT NULL
);

CREATE TABLE IF NOT EXISTS jobs (
    job_id VARCHAR PRIMARY KEY,
    run_id VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    recipe VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    spec JSON NOT NULL,
    state VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    created DOUBLE NOT NULL,
    started DOUBLE,
    ended DOUBLE,
    reason VARCHAR NOT NULL,
    cancel BOOLEAN NOT NULL,
    stream_offset BIGINT NOT NULL,      -- bytes of this attempt's stream already in `events`
    event_count BIGINT NOT NULL,        -- events of all attempts: the number of the last one
    stage VARCHAR NOT NULL,             -- the latest progress, kept here so that polling reads one row
    done DOUBLE NOT NULL,
    total DOUBLE NOT NULL,
    revision BIGINT NOT NULL            -- raised at every change of any job
);

CREATE TABLE IF NOT EXISTS events (
    job_id VARCHAR NOT NULL,
    number BIGINT NOT NULL,             -- 1, 2, 3 ... over all attempts of the job
    attempt INTEGER NOT NULL,
    seq BIGINT NOT NULL,                -- 0, 1, 2 ... within the attempt
    time DOUBLE NOT NULL,
    kind VARCHAR NOT NULL,
    data JSON NOT NULL
);

CREATE TABLE IF NOT EXISTS results (
    run_id VARCHAR PRIMARY KEY,
    model VARCHAR NOT NULL,
    recipe VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    hardware_id VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL,
    created VARCHAR NOT NULL,           -- ISO 8601 in UTC, as in the file
    seconds DOUBLE NOT NULL,
    model_detail JSON NOT NULL,
    stages JSON NOT NULL,
    budget JSON NOT NULL,
    layers JSON NOT NULL,
    notes JSON NOT NULL,
    artefact JSON NOT NULL,
    manifest JSON NOT NULL
);

CREATE TABLE IF NOT EXISTS readings (
    run_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    value DOUBLE,
    low DOUBLE,
    high DOUBLE,
    unit VARCHAR NOT NULL,
    direction VARCHAR NOT NULL,         -- lower, higher or none
    kind VARCHAR NOT NULL,              -- measured, counted or estimated
    samples JSON,
    note VARCHAR NOT NULL
);

CREATE TABLE IF NOT EXISTS generations (
    run_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    prompt VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    tokens JSON NOT NULL,
    first_divergence INTEGER,
    gap DOUBLE,
    detail JSON NOT NULL                -- the whole entry, fields without a column included
);

CREATE TABLE IF NOT EXISTS shares (
    slug VARCHAR PRIMARY KEY,
    query JSON NOT NULL,
    created DOUBLE NOT NULL
);

CREATE TABLE IF NOT EXISTS votes (
    run_id VARCHAR NOT NULL,
    prompt VARCHAR NOT NULL,
    voter VARCHAR NOT NULL,
    answer VARCHAR NOT NULL,            -- right, wrong or unsure: was the compressed text told?
    created DOUBLE NOT NULL,
    PRIMARY KEY (run_id, prompt, voter)
);
