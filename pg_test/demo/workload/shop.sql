-- The statements of a web shop: short, frequent, prepared once and run with parameters.

-- name: customer_by_key
SELECT c_name, c_phone, c_acctbal::float8, n_name
FROM customer JOIN nation ON n_nationkey = c_nationkey
WHERE c_custkey = $1

-- name: part_by_key
SELECT p_name, p_brand, p_retailprice::float8 FROM part WHERE p_partkey = $1

-- name: offers_of_part
SELECT s_name, ps_supplycost::float8, ps_availqty
FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey
WHERE ps_partkey = $1
ORDER BY ps_supplycost

-- name: search_parts
SELECT p_partkey, p_name FROM part WHERE p_name LIKE $1 ORDER BY p_retailprice DESC LIMIT 20

-- name: dashboard_states
SELECT o_orderstatus, count(*), sum(o_totalprice)::float8
FROM orders
WHERE o_orderdate BETWEEN date '1995-01-01' + $1::int - 30 AND date '1995-01-01' + $1::int
GROUP BY o_orderstatus

-- name: dashboard_late
SELECT o_orderkey, o_orderpriority, max(l_receiptdate - l_commitdate) AS days_late
FROM orders JOIN lineitem ON l_orderkey = o_orderkey
WHERE o_orderdate = date '1995-01-01' + $1::int AND l_receiptdate > l_commitdate
GROUP BY o_orderkey, o_orderpriority
ORDER BY days_late DESC
LIMIT 10

-- name: orders_of_day
SELECT o_orderkey, o_custkey
FROM orders
WHERE o_orderdate = date '1995-01-01' + $1::int
ORDER BY o_orderkey
LIMIT 25

-- name: lines_of_order
SELECT l_linenumber, l_partkey, l_quantity::float8, l_extendedprice::float8
FROM lineitem
WHERE l_orderkey = $1
ORDER BY l_linenumber

-- name: place_order
SELECT place_order($1, $2, $3)

-- name: last_orders
SELECT o_orderkey, o_orderdate::text, o_totalprice::float8
FROM orders
WHERE o_custkey = $1
ORDER BY o_orderdate DESC
LIMIT 10
