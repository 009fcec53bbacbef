-- Top reasons this week
SELECT reason, sum(kills) AS killed, uniq(host) AS hosts
FROM oom.events FINAL
WHERE time >= now() - 7 * 86400 AND kind != 'test'
GROUP BY reason ORDER BY killed DESC LIMIT 20;

-- Which image leaks: killed at its own limit on most days, wherever it runs
SELECT image, sum(kills) AS killed, uniq(pod) AS pods, uniq(toDate(time)) AS days
FROM
(
    SELECT namespace, container, pod, time, kills FROM oom.events FINAL
    WHERE time >= now() - 7 * 86400 AND oom_constraint = 'memcg' AND container != ''
) AS happened
ANY LEFT JOIN (SELECT namespace, container, image FROM oom.images) AS known USING (namespace, container)
GROUP BY image HAVING days >= 4 ORDER BY killed DESC LIMIT 20;

-- Which node pool runs out of memory as a whole, per host that did
SELECT pool, sum(kills) AS killed, uniq(host) AS hosts, round(sum(kills) / uniq(host), 2) AS per_host
FROM oom.events FINAL
WHERE time >= now() - 7 * 86400 AND oom_constraint != 'memcg' AND kind != 'test'
GROUP BY pool ORDER BY killed DESC;

-- A day before and a day after a rollout
SELECT container, sumIf(kills, time < toDateTime('2026-11-20 12:00:00')) AS before_it,
    sumIf(kills, time >= toDateTime('2026-11-20 12:00:00')) AS after_it
FROM oom.events FINAL
WHERE namespace = 'shop' AND time >= toDateTime('2026-11-20 12:00:00') - 86400
    AND time < toDateTime('2026-11-20 12:00:00') + 86400
GROUP BY container ORDER BY after_it - before_it DESC;

-- Was this pod killed
SELECT time, host, container, victim_comm, kills, summary
FROM oom.events FINAL
WHERE pod = 'cart-7d9f4-x2x1z' ORDER BY time DESC LIMIT 100;
