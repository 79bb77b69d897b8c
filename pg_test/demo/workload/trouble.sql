-- Statements that do not end well, each in its own way.

-- name: duplicate
INSERT INTO nation VALUES ($1, 'ATLANTIS', 0, 'sunk')

-- name: divide
SELECT (o_totalprice / o_shippriority)::float8 FROM orders WHERE o_orderkey = $1

-- name: unknown_column
SELECT c_nickname FROM customer WHERE c_custkey = 1

-- name: touch_part
UPDATE part SET p_comment = p_comment WHERE p_partkey = $1
