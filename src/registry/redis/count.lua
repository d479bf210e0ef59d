-- KEYS: the index of expiries. Answers how many sessions there are here.
only_here()
return {text(redis.call('ZCARD', KEYS[1]))}
