-- Analytic questions on the same data, each heavier than the threshold for slow executions.

-- name: revenue_by_nation
SELECT n_name, extract(year FROM o_orderdate)::int AS year, sum(l_extendedprice * (1 - l_discount))::float8 AS revenue
FROM lineitem
JOIN orders ON o_orderkey = l_orderkey
JOIN customer ON c_custkey = o_custkey
JOIN nation ON n_nationkey = c_nationkey
JOIN region ON r_regionkey = n_regionkey
WHERE r_name = $1
GROUP BY n_name, year
ORDER BY n_name, year

-- name: late_by_shipmode
SELECT l_shipmode, o_orderpriority, count(*), avg(l_receiptdate - l_commitdate)::float8 AS days_late
FROM lineitem JOIN orders ON o_orderkey = l_orderkey
WHERE l_receiptdate > l_commitdate AND l_shipdate >= date '1995-01-01' + $1::int
GROUP BY l_shipmode, o_orderpriority
ORDER BY days_late DESC

-- name: margin_by_customer
SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity)::float8 AS margin
FROM customer
JOIN orders ON o_custkey = c_custkey
JOIN lineitem ON l_orderkey = o_orderkey
JOIN partsupp ON ps_partkey = l_partkey AND ps_suppkey = l_suppkey
WHERE c_mktsegment = $1
GROUP BY c_custkey, c_name
ORDER BY margin DESC
LIMIT 20

-- name: unsold_parts
SELECT p_brand, count(*)
FROM part
WHERE NOT EXISTS (SELECT FROM lineitem
                  WHERE l_partkey = p_partkey AND l_shipdate >= date '1998-01-01' + $1::int)
GROUP BY p_brand
ORDER BY count(*) DESC

-- name: running_balance
SELECT max(balance)::float8
FROM (SELECT sum(o_totalprice) OVER (PARTITION BY o_custkey ORDER BY o_orderdate, o_orderkey) AS balance
      FROM orders
      WHERE o_orderdate < date '1996-01-01' + $1::int) AS ledger

-- name: bought_together
SELECT a.l_partkey AS part, b.l_partkey AS other, count(*) AS times
FROM lineitem a JOIN lineitem b ON a.l_orderkey = b.l_orderkey AND a.l_partkey < b.l_partkey
WHERE a.l_shipdate BETWEEN date '1996-01-01' + $1::int AND date '1996-03-01' + $1::int
GROUP BY part, other
ORDER BY times DESC, part, other
LIMIT 10

-- name: same_supplier_pairs
-- Runs for minutes: it is here to be stopped.
SELECT count(*)
FROM lineitem a JOIN lineitem b ON a.l_suppkey = b.l_suppkey AND a.l_shipdate < b.l_shipdate
