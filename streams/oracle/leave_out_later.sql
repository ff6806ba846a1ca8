-- What the log holds from after the state was read. A change names the input offset after which it was made.
CREATE TEMP TABLE made_by AS
SELECT members.population, inputs.progress
FROM (SELECT DISTINCT population, ranking_shard FROM members) AS members
JOIN inputs ON inputs.topic = 'standings' AND inputs.shard = members.ranking_shard;

DELETE FROM changes USING made_by
WHERE changes.population = made_by.population AND changes.input_offset > made_by.progress;

DELETE FROM compacted USING made_by
WHERE compacted.population = made_by.population AND compacted.input_offset > made_by.progress;

DELETE FROM dead_letters USING inputs
WHERE dead_letters.topic = inputs.topic AND dead_letters.shard = inputs.shard
    AND dead_letters.log_offset >= inputs.progress;
